"""What waits in the delivery table, and until when."""

from collections.abc import Sequence

from sqlalchemy import bindparam, case, func, select

from message_contracts import topology
from service_runtime.database import Database
from service_runtime.messaging.tables import delivery

FOR_THE_RELAY = delivery.c.queue.not_like(f"%{topology.BRANCH_MARK}%")
"""What a relay takes to the broker: the queues themselves, and no branch of one."""


def next_due_at(database: Database, queues: Sequence[str] | None = None) -> float | None:
    """Return when the next of ``queues`` (or for the relay) may be claimed; ``None``: never."""
    with database.reading() as connection:
        if queues is None:
            return connection.execute(_NEXT_DUE).scalar()
        return connection.execute(_NEXT_DUE_OF, {"queues": list(queues)}).scalar()


def waiting(database: Database) -> dict[str, int]:
    """Return how many deliveries each queue has in the database."""
    with database.reading() as connection:
        rows = connection.execute(
            select(delivery.c.queue, func.count()).group_by(delivery.c.queue)
        ).all()
    return {queue: count for queue, count in rows}  # noqa: C416 - rows are not pairs to mypy


# A delivery may be claimed once it is due and nobody's lease is on it.
_NEXT_OF_ALL = select(
    func.min(
        case(
            (delivery.c.leased_until > delivery.c.due_at, delivery.c.leased_until),
            else_=delivery.c.due_at,
        )
    )
)
_NEXT_DUE = _NEXT_OF_ALL.where(FOR_THE_RELAY)
_NEXT_DUE_OF = _NEXT_OF_ALL.where(delivery.c.queue.in_(bindparam("queues", expanding=True)))
