"""Has what waits to be tried again tried now, because what it waited for has come."""

import time
from collections.abc import Sequence

from sqlalchemy import update

from service_runtime.database import Transaction
from service_runtime.messaging.tables import delivery


def hasten(transaction: Transaction, message_ids: Sequence[str]) -> None:
    """Have deliveries of these messages be due, in whichever queue they wait."""
    if not message_ids:
        return
    now = time.time()
    hastened = transaction.connection.execute(
        update(delivery)
        .where(delivery.c.message_id.in_(message_ids), delivery.c.due_at > now)
        .values(due_at=now)
    )
    if hastened.rowcount:
        transaction.after_commit(transaction.database.wake)
