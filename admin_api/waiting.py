"""What is still to be sent, and why it has not been: requests in the queues of destinations."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection, Row, Select, select

from message_contracts import catalogue, topology
from message_contracts.delivery import AttachmentRequested, RejectionRequested
from service_runtime.messaging.tables import delivery, message

MOST_SHOWN = 100


class Waiting(BaseModel):
    """How long something has waited, and for what."""

    since: datetime
    attempts: int
    """How often it has failed so far."""
    next_try_at: datetime
    """No earlier; while the destination is paused or its window closed, later."""
    last_error: str | None
    """What the last try, or look, found."""


class WaitingRequest(Waiting):
    """A request that a destination has yet to carry out."""

    case_id: UUID
    case_version: int
    asks_for: str
    """``results`` or ``rejection note``."""


def of_destination(connection: Connection, name: str) -> list[WaitingRequest]:
    """Return what waits for a destination, the first to be tried first; so many at most."""
    branch = topology.branch_of(topology.ATTACHMENT, name)
    rows = connection.execute(
        _waiting().where(delivery.c.queue == branch).order_by(delivery.c.due_at).limit(MOST_SHOWN)
    )
    found = []
    for row in rows:
        match catalogue.decode(bytes(row.body)).body:
            case AttachmentRequested() | RejectionRequested() as asked:
                is_note = isinstance(asked, RejectionRequested)
                found.append(
                    WaitingRequest(
                        **_fields(row),
                        case_id=asked.case_id,
                        case_version=asked.case_version,
                        asks_for="rejection note" if is_note else "results",
                    )
                )
    return found


def of_messages(connection: Connection, message_ids: Collection[str]) -> Mapping[str, Waiting]:
    """Return those of these messages that wait, by their ids."""
    # Of a message in several queues, where it has been tried most often.
    rows = connection.execute(
        _waiting().where(delivery.c.message_id.in_(message_ids)).order_by(delivery.c.attempt)
    )
    return {row.message_id: Waiting(**_fields(row)) for row in rows}


def _waiting() -> Select[Any]:
    return select(delivery, message.c.created_at, message.c.body).join(
        message, message.c.id == delivery.c.message_id
    )


def _fields(row: Row[Any]) -> dict[str, Any]:
    return {
        "since": row.created_at,
        "attempts": row.attempt,
        "next_try_at": datetime.fromtimestamp(row.due_at, UTC),
        "last_error": row.last_error,
    }
