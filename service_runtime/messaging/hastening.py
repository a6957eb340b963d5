"""Has what waits to be tried again tried now, because what it waited for has come."""

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, update

from service_runtime.database import Transaction
from service_runtime.messaging.tables import delivery


def hasten(transaction: Transaction, message_ids: Sequence[str]) -> None:
    """Have deliveries of these messages be due, in whichever queue they wait."""
    if not message_ids:
        return
    _hasten(transaction, delivery.c.message_id.in_(message_ids))


def hasten_queue(transaction: Transaction, queue: str) -> None:
    """Have all that waits in a queue, or a branch of one, be due."""
    _hasten(transaction, delivery.c.queue == queue)


def _hasten(transaction: Transaction, which: ColumnElement[bool]) -> None:
    now = time.time()
    hastened = transaction.connection.execute(
        update(delivery).where(which, delivery.c.due_at > now).values(due_at=now)
    )
    if hastened.rowcount:
        transaction.after_commit(transaction.database.wake)
