"""Lets go of messages that nobody will ask about again, so that these tables do not only grow.

A message may be forgotten once it cannot be delivered any more. With a broker that cannot be seen
from here: a consumer that was cut off before it could acknowledge is given the message again when
it comes back. So whoever has handled one remembers it for longer than anything stays away.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, delete, exists, select, tuple_
from sqlalchemy.exc import IntegrityError

from service_runtime.database import Database
from service_runtime.messaging.tables import dead_letter, delivery, inbox, message

REMEMBERED = timedelta(days=90)
"""How long a message and its handling are remembered."""
DECISION_REMEMBERED = timedelta(days=365)
"""How long who resolved a dead letter, and why, is remembered."""

_BATCH = 500


def forget(database: Database, now: datetime) -> int:
    """Forget what is old enough; return how many rows that were.

    What waits to be delivered, and dead letters that nobody has resolved, are never forgotten.

    Raises
    ------
    DatabaseUnavailable
        Some may have been forgotten.
    """
    before = now - REMEMBERED
    waits = exists(select(delivery.c.queue).where(delivery.c.message_id == message.c.id))
    handled_waits = exists(
        select(delivery.c.queue).where(delivery.c.message_id == inbox.c.message_id)
    )
    is_dead = exists(
        select(dead_letter.c.id).where(
            dead_letter.c.message_id == inbox.c.message_id, dead_letter.c.resolved_at.is_(None)
        )
    )
    return (
        _forget(database, inbox, and_(inbox.c.at < before, ~handled_waits, ~is_dead))
        + _forget(database, message, and_(message.c.created_at < before, ~waits))
        + _forget(database, dead_letter, dead_letter.c.resolved_at < now - DECISION_REMEMBERED)
    )


def _forget(database: Database, table: Table, may_go: ColumnElement[bool]) -> int:
    """Delete rows in short transactions, so that nobody waits long for the writers' lock."""
    keys = tuple(table.primary_key.columns)
    forgotten = 0
    while True:
        with database.reading() as connection:
            found: list[Any] = list(
                connection.execute(select(*keys).where(may_go).limit(_BATCH)).all()
            )
        if not found:
            return forgotten
        try:
            with database.transaction() as transaction:
                gone = transaction.connection.execute(
                    delete(table).where(tuple_(*keys).in_([tuple(row) for row in found]), may_go)
                ).rowcount
        except IntegrityError:
            # It has just been sent once more.
            return forgotten
        forgotten += gone
        if gone < _BATCH:
            return forgotten
