"""What PACS have answered, instance by instance."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from admin_api.case_views import InstanceDelivery
from imaging_store.schema.delivery import attachment, commitment_answer, commitment_request


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
