"""``countersign audit verify``."""


from service_runtime.database import Database
from workflow_engine.history import verify


def verify_history(database: Database) -> int:
    """Check the chain of the history, say what was found, and return the exit code."""
    faults = verify(database)
    return 1 if faults else 0
