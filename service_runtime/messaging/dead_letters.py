"""Dead letters: what a person must look at, with who decided what, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, func, select, update

from message_contracts import catalogue, topology
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging import outbox
from service_runtime.messaging.tables import dead_letter

REPLAYED = "replayed"
DISCARDED = "discarded"


class NoSuchDeadLetter(PermanentError):
    """There is no open dead letter of this id: it never was, or somebody has resolved it."""


class NotReplayable(PermanentError):
    """The body is no message of this version's catalogue: it can only be discarded."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up."""

    id: str
    queue: str
    message_id: str | None
    routing_key: str
    body: bytes
    reason: str
    attempts: int
    at: datetime


def list_open(database: Database, *, limit: int = 100) -> list[DeadLetter]:
    """Return dead letters that nobody has resolved, the oldest first."""
    with database.reading() as connection:
        rows = connection.execute(
            select(dead_letter)
            .where(dead_letter.c.resolved_at.is_(None))
            .order_by(dead_letter.c.at, dead_letter.c.id)
            .limit(limit)
        ).all()
    return [_from_row(row) for row in rows]


def open_by_queue(database: Database) -> dict[str, int]:
    """Return how many open dead letters each queue of the topology has; others where they do."""
    with database.reading() as connection:
        rows = connection.execute(
            select(dead_letter.c.queue, func.count())
            .where(dead_letter.c.resolved_at.is_(None))
            .group_by(dead_letter.c.queue)
        ).all()
    counts = dict.fromkeys(topology.QUEUES, 0)
    counts.update({row[0]: row[1] for row in rows})
    return counts


def replay(transaction: Transaction, dead_letter_id: str, *, who: str, why: str) -> None:
    """Have a dead letter delivered again, to its queue or branch alone, with all its attempts.

    Raises
    ------
    NoSuchDeadLetter
        It never was, or somebody has resolved it.
    NotReplayable
        It cannot be decoded, or its queue is no longer there: it can only be discarded.
    """
    found = _resolve(transaction, dead_letter_id, REPLAYED, who, why)
    if topology.queue_of(found.queue) not in topology.QUEUES:
        raise NotReplayable("queue: not in the topology")
    try:
        envelope = catalogue.decode(found.body)
    except catalogue.UndecodableMessage as error:
        raise NotReplayable(str(error)) from None
    message_id = str(envelope.id)
    outbox.keep(transaction, message_id, envelope.body.routing_key, found.body)
    outbox.deliver(transaction, message_id, [found.queue])


def times_replayed(connection: Connection, message_id: UUID) -> int:
    """Return how often a message was replayed: each time it may lead to something else."""
    return connection.execute(_TIMES_REPLAYED, {"of_message": str(message_id)}).scalar_one()


def discard(transaction: Transaction, dead_letter_id: str, *, who: str, why: str) -> None:
    """Give a dead letter up for good. It stays in the table, with who and why.

    Raises
    ------
    NoSuchDeadLetter
        It never was, or somebody has resolved it.
    """
    _resolve(transaction, dead_letter_id, DISCARDED, who, why)


def _resolve(
    transaction: Transaction, dead_letter_id: str, resolution: str, who: str, why: str
) -> DeadLetter:
    row = transaction.connection.execute(
        update(dead_letter)
        .where(dead_letter.c.id == dead_letter_id, dead_letter.c.resolved_at.is_(None))
        .values(resolved_at=datetime.now(UTC), resolved_by=who, resolution=resolution, why=why)
        .returning(dead_letter)
    ).one_or_none()
    if row is None:
        raise NoSuchDeadLetter("dead letter: none open of this id")
    return _from_row(row)


def _from_row(row: Row[tuple[object, ...]]) -> DeadLetter:
    return DeadLetter(
        id=row.id,
        queue=row.queue,
        message_id=row.message_id,
        routing_key=row.routing_key,
        body=bytes(row.body),
        reason=row.reason,
        attempts=row.attempts,
        at=row.at,
    )


# Made once: every answer asks, and to put a statement together takes longer than to run it.
_TIMES_REPLAYED = select(func.count()).where(
    dead_letter.c.message_id == bindparam("of_message"), dead_letter.c.resolution == REPLAYED
)
