"""Storage Commitment as its user: what PACS were asked to keep, and what they answered.

The one writer of ``commitment_request`` and ``commitment_answer``. A request is kept before it is
sent, because the report may come on an association of the PACS's own before ours has ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import Connection, select, update

from dicom_sender.attachments import Consignment
from imaging_store.schema.delivery import commitment_answer, commitment_request
from message_contracts.delivery import PROCESSING_FAILURE, CommitmentReported
from message_contracts.identifiers import derived_uid
from service_runtime.database import Transaction

_LOG = structlog.get_logger()


@dataclass(frozen=True)
class Asked:
    """A request that was kept for a consignment."""

    transaction_uid: str
    accepted_at: datetime | None
    """When the PACS took it; it tells the outcome later."""
    answered: bool
    settled: bool
    """We have acted on the answer."""


@dataclass(frozen=True)
class Standing:
    """How far a consignment is committed."""

    committed: frozenset[str]
    refused: Mapping[str, int]
    """Failure Reason by SOP Instance UID, of what no answer commits."""
    rounds: int
    """How many requests were answered, or given up."""
    last: Asked | None


def standing(connection: Connection, consigned: Consignment) -> Standing:
    """Return how far a consignment is committed."""
    asked = connection.execute(
        select(commitment_request)
        .where(
            commitment_request.c.destination == consigned.destination,
            commitment_request.c.case_id == consigned.case_id,
            commitment_request.c.case_version == consigned.case_version,
        )
        .order_by(commitment_request.c.requested_at)
    ).all()
    answers = connection.execute(
        select(commitment_answer).where(
            commitment_answer.c.transaction_uid.in_([row.transaction_uid for row in asked]),
            commitment_answer.c.sop_instance_uid.in_(consigned.sop_instance_uids),
        )
    ).all()
    committed = {row.sop_instance_uid for row in answers if row.failure_reason is None}
    last = asked[-1] if asked else None
    return Standing(
        committed=frozenset(committed),
        refused={
            row.sop_instance_uid: row.failure_reason
            for row in answers
            if row.sop_instance_uid not in committed
        },
        rounds=sum(row.answered_at is not None for row in asked),
        last=None
        if last is None
        else Asked(
            last.transaction_uid,
            last.accepted_at,
            answered=last.answered_at is not None,
            settled=last.settled_at is not None,
        ),
    )


def is_answered(connection: Connection, transaction_uid: str) -> bool:
    """Tell whether a report has come, on whichever association."""
    answered = select(commitment_request.c.answered_at).where(
        commitment_request.c.transaction_uid == transaction_uid
    )
    return connection.execute(answered).scalar() is not None


def ask(transaction: Transaction, consigned: Consignment, uids: Sequence[str], at: datetime) -> str:
    """Keep that a PACS is to be asked about these; return the Transaction UID (0008,1195).

    Kept again before there was an answer, it is the same transaction.
    """
    rounds = standing(transaction.connection, consigned).rounds
    transaction_uid = derived_uid(
        "commitment", consigned.destination, consigned.case_id, consigned.case_version, rounds
    )
    transaction.connection.execute(
        transaction.database.insert_new(commitment_request),
        {
            "transaction_uid": transaction_uid,
            "destination": consigned.destination,
            "case_id": consigned.case_id,
            "case_version": consigned.case_version,
            "sop_instance_uids": list(uids),
            "requested_at": at,
        },
    )
    return transaction_uid


def accepted(transaction: Transaction, transaction_uid: str, at: datetime) -> None:
    """Note that the PACS has taken the request."""
    _set(transaction, transaction_uid, accepted_at=at)


def settle(transaction: Transaction, transaction_uid: str, at: datetime) -> None:
    """Note that we have acted on the answer."""
    _set(transaction, transaction_uid, settled_at=at)


def give_up(transaction: Transaction, transaction_uid: str, at: datetime) -> None:
    """Wait no longer for an answer: what it was about may be asked about anew."""
    _set(transaction, transaction_uid, answered_at=at, settled_at=at)


def keep_report(
    transaction: Transaction,
    report: CommitmentReported,
    ae_titles: Mapping[str, str],
    at: datetime,
) -> None:
    """Keep what a PACS has told. Told twice, or of what it was never asked, it changes nothing.

    ``ae_titles`` are those of the destinations, by name: a Transaction UID is no secret, and only
    the AE that was asked can commit itself.
    """
    asked = transaction.connection.execute(
        select(commitment_request)
        .where(commitment_request.c.transaction_uid == report.transaction_uid)
        .with_for_update()
    ).one_or_none()
    if asked is None or asked.answered_at is not None:
        _LOG.info("commitment.not_asked", transaction_uid=report.transaction_uid)
        return
    if report.calling_ae_title.strip() != ae_titles.get(asked.destination):
        _LOG.warning(
            "commitment.not_theirs",
            transaction_uid=report.transaction_uid,
            destination=asked.destination,
            calling_ae_title=report.calling_ae_title,
        )
        return
    committed = set(report.committed)
    reasons = {each.sop_instance_uid: each.failure_reason for each in report.refused}
    rows = [
        {
            "transaction_uid": report.transaction_uid,
            "sop_instance_uid": uid,
            # What a report leaves out is not committed to.
            "failure_reason": reasons.get(uid, None if uid in committed else PROCESSING_FAILURE),
        }
        for uid in asked.sop_instance_uids
    ]
    transaction.connection.execute(commitment_answer.insert(), rows)
    _set(transaction, report.transaction_uid, answered_at=at)
    _LOG.info(
        "commitment.reported",
        transaction_uid=report.transaction_uid,
        destination=asked.destination,
        instance_count=len(rows),
        count=sum(row["failure_reason"] is not None for row in rows),
    )


def _set(transaction: Transaction, transaction_uid: str, **values: datetime) -> None:
    transaction.connection.execute(
        update(commitment_request)
        .where(commitment_request.c.transaction_uid == transaction_uid)
        .values(values)
    )
