"""``countersign audit verify``."""

import sys

from service_runtime.database import Database
from workflow_engine.audit import verify


def verify_history(database: Database) -> int:
    """Check the chain of the history, say what was found, and return the exit code."""
    with database.reading() as connection:
        result = verify(connection)
    for fault in result.faults:
        sys.stdout.write(f"FAULT  {fault}\n")
    found = "intact" if result.intact else f"{len(result.faults)} faults"
    sys.stdout.write(f"{result.rows} rows of history, {result.signatures} signatures: {found}\n")
    return 0 if result.intact else 1
