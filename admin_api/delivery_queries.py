"""What PACS have answered, instance by instance, and why something has not gone yet."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import Connection, Row, select

from admin_api.case_views import InstanceDelivery
from admin_api.waiting import of_messages
from imaging_store.schema.administration import destination_pause
from imaging_store.schema.delivery import attachment, commitment_answer, commitment_request
from message_contracts.case import DeliveryState
from message_contracts.delivery import EHR, AttachmentRequested, ReportRequested, request_id


def of_case(
    connection: Connection, case_id: UUID, version: int
) -> Mapping[str, list[InstanceDelivery]]:
    """Return what each destination has answered about a case version."""
    rows = connection.execute(
        select(attachment)
        .where(attachment.c.case_id == case_id, attachment.c.case_version == version)
        .order_by(attachment.c.destination, attachment.c.sop_instance_uid)
    ).all()
    commitments = _commitments(connection, case_id, version)
    found: dict[str, list[InstanceDelivery]] = {}
    for row in rows:
        answers = commitments.get((row.destination, row.sop_instance_uid), [])
        found.setdefault(row.destination, []).append(_delivery(row, answers))
    return found


class Wait(TypedDict):
    """Why a delivery is still to come, and when it is tried next."""

    waiting_for: str | None
    next_try_at: datetime | None


NOT_WAITING = Wait(waiting_for=None, next_try_at=None)


def waiting(connection: Connection, deliveries: Sequence[Row[Any]]) -> Mapping[str, Wait]:
    """Return why each of these rows of ``destination_delivery`` is still to come, by name."""
    asked = {
        each.destination: str(
            request_id(
                ReportRequested.TYPE if each.kind == EHR else AttachmentRequested.TYPE,
                each.case_id,
                each.case_version,
                each.destination,
                each.requested_before,
            )
        )
        for each in deliveries
        if each.state == DeliveryState.PENDING
    }
    found = of_messages(connection, list(asked.values()))
    pauses = connection.execute(
        select(destination_pause).where(destination_pause.c.destination.in_(list(asked)))
    )
    paused = {row.destination: f"paused by {row.paused_by}: {row.why}" for row in pauses}
    waits = {}
    for destination, message_id in asked.items():
        of_it = found.get(message_id)
        waits[destination] = Wait(
            waiting_for=paused.get(destination, of_it.last_error if of_it else None),
            next_try_at=of_it.next_try_at if of_it else None,
        )
    return waits


def _delivery(row: Any, failure_reasons: list[int | None]) -> InstanceDelivery:
    committed = None in failure_reasons if failure_reasons else None
    last = failure_reasons[-1] if failure_reasons else None
    return InstanceDelivery(
        sop_instance_uid=row.sop_instance_uid,
        status=f"0x{row.status:04X}",
        error_comment=row.error_comment,
        transfer_syntax_uid=row.transfer_syntax_uid,
        answered_at=row.answered_at,
        committed=committed,
        failure_reason=None if committed or last is None else f"0x{last:04X}",
    )


def _commitments(
    connection: Connection, case_id: UUID, version: int
) -> dict[tuple[str, str], list[int | None]]:
    """Return every answer about commitment, the oldest first, by destination and instance."""
    rows = connection.execute(
        select(
            commitment_request.c.destination,
            commitment_answer.c.sop_instance_uid,
            commitment_answer.c.failure_reason,
        )
        .join(
            commitment_answer,
            commitment_answer.c.transaction_uid == commitment_request.c.transaction_uid,
        )
        .where(
            commitment_request.c.case_id == case_id,
            commitment_request.c.case_version == version,
        )
        .order_by(commitment_request.c.requested_at)
    )
    found: dict[tuple[str, str], list[int | None]] = {}
    for row in rows:
        key = (row.destination, row.sop_instance_uid)
        found.setdefault(key, []).append(row.failure_reason)
    return found
