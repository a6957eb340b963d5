"""How a handler answers the message that it was given."""

from __future__ import annotations

from datetime import datetime

from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.message import Message
from service_runtime.database import Transaction
from service_runtime.messaging import dead_letters, outbox


def answer(
    transaction: Transaction, request: Envelope, message: Message, *, source: str, time: datetime
) -> None:
    """Send what a request has led to, once for each time that it was asked for.

    A request that is replayed may fail for another reason, and then as it did at first: each is
    told. So the id counts how often it was replayed.

    Raises
    ------
    UnboundMessage
        No queue of the topology is bound to the message.
    """
    times = dead_letters.times_replayed(transaction.connection, request.id)
    own_id = derived_id(message.TYPE, request.id, times)
    outbox.send(transaction, request.leads_to(message, source=source, time=time, id=own_id))
