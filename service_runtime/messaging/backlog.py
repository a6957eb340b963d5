"""What waits in the delivery table, and until when."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, case, func, or_, select

from message_contracts import topology
from service_runtime.database import Database
from service_runtime.messaging.tables import delivery

FOR_THE_RELAY = delivery.c.queue.not_like(f"%{topology.BRANCH_MARK}%")
"""What a relay takes to the broker: the queues themselves, and no branch of one."""


def next_due_at(database: Database) -> float | None:
    """Return when the relay may claim the next delivery; ``None``: never."""
    with database.reading() as connection:
        return connection.execute(_NEXT_DUE).scalar()


def next_due_by_queue(database: Database, queues: Sequence[str]) -> dict[str, float]:
    """Return when the next delivery of each of ``queues`` may be claimed, where there is any."""
    with database.reading() as connection:
        rows = connection.execute(_next_due_by_queue(tuple(queues))).all()
    return {queue: due_at for queue, due_at in rows}  # noqa: C416 - rows are not pairs to mypy


def waiting(database: Database) -> dict[str, int]:
    """Return how many deliveries each queue has in the database."""
    with database.reading() as connection:
        rows = connection.execute(
            select(delivery.c.queue, func.count()).group_by(delivery.c.queue)
        ).all()
    return {queue: count for queue, count in rows}  # noqa: C416 - rows are not pairs to mypy


# A delivery may be claimed once it is due and nobody's lease is on it.
_DUE_AT = func.min(
    case(
        (delivery.c.leased_until > delivery.c.due_at, delivery.c.leased_until),
        else_=delivery.c.due_at,
    )
)
_NEXT_DUE = select(_DUE_AT).where(FOR_THE_RELAY)


@lru_cache(maxsize=64)
def _next_due_by_queue(queues: tuple[str, ...]) -> Select[Any]:
    # A list of values would be spelled out anew each time, which takes as long as the statement.
    return (
        select(delivery.c.queue, _DUE_AT)
        .where(or_(*(delivery.c.queue == queue for queue in queues)))
        .group_by(delivery.c.queue)
    )
