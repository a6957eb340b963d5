"""Has what waits come sooner, because what it waited for has come, or because it is urgent."""

import time
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from service_runtime.database import Transaction
from service_runtime.messaging.tables import delivery, inbox, message


def hasten(transaction: Transaction, message_ids: Sequence[str]) -> None:
    """Have deliveries of these messages be due, in whichever queue they wait."""
    if not message_ids:
        return
    _hasten(transaction, delivery.c.message_id.in_(message_ids))


def hasten_queue(transaction: Transaction, queue: str) -> None:
    """Have all that waits in a queue, or a branch of one, be due."""
    _hasten(transaction, delivery.c.queue == queue)


def body_of(connection: Connection, message_id: UUID) -> bytes | None:
    """Return a message that was sent, to be sent in another lane; ``None``: not, or long ago."""
    body = connection.execute(
        select(message.c.body).where(message.c.id == str(message_id))
    ).scalar()
    return None if body is None else bytes(body)


def is_handled(connection: Connection, queue: str, message_id: UUID) -> bool:
    """Tell whether a message was handled in a queue."""
    handled = {"of_queue": queue, "of_message": str(message_id)}
    return connection.execute(_HANDLED, handled).first() is not None


def _hasten(transaction: Transaction, which: ColumnElement[bool]) -> None:
    now = time.time()
    hastened = transaction.connection.execute(
        update(delivery).where(which, delivery.c.due_at > now).values(due_at=now)
    )
    if hastened.rowcount:
        transaction.after_commit(transaction.database.wake)


_HANDLED = select(inbox.c.at).where(
    inbox.c.queue == bindparam("of_queue"), inbox.c.message_id == bindparam("of_message")
)
