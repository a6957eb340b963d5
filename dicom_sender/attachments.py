"""What PACS have answered, instance by instance. The one writer of ``attachment``."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, and_, delete, select, union_all

from dicom_sender.send import Sent
from dicom_sender.store_outcome import PENDING, may_be_there
from imaging_store.schema.delivery import attachment, destination_contact, rejection_note
from imaging_store.schema.ingest import instance
from imaging_store.schema.results import result_object
from message_contracts.delivery import AttachmentRequested, RejectionRequested
from service_runtime.database import Transaction

LONGEST_REASON = 500


@dataclass(frozen=True)
class Consignment:
    """What goes to a destination together, and for which case version."""

    case_id: UUID
    case_version: int
    study_instance_uid: str
    destination: str
    sop_instance_uids: tuple[str, ...]

    @classmethod
    def of(cls, request: AttachmentRequested | RejectionRequested) -> "Consignment":
        """Return what a message asks for."""
        return cls(
            request.case_id,
            request.case_version,
            request.study_instance_uid,
            request.destination,
            request.sop_instance_uids,
        )


def statuses(connection: Connection, consigned: Consignment) -> dict[str, int]:
    """Return the Status of what the destination has answered to, or was sent, before."""
    columns = attachment.c
    rows = connection.execute(
        select(columns.sop_instance_uid, columns.status).where(
            columns.destination == consigned.destination,
            columns.sop_instance_uid.in_(consigned.sop_instance_uids),
        )
    )
    return {row.sop_instance_uid: row.status for row in rows}


def perhaps_there(connection: Connection, consigned: Consignment) -> frozenset[str]:
    """Return what the destination has taken, or may have: one of our tries got no answer."""
    columns = attachment.c
    rows = connection.execute(
        select(columns.sop_instance_uid, columns.status, columns.was_unanswered).where(
            columns.destination == consigned.destination,
            columns.sop_instance_uid.in_(consigned.sop_instance_uids),
        )
    )
    return frozenset(
        row.sop_instance_uid for row in rows if row.was_unanswered or may_be_there(row.status)
    )


def begin(
    transaction: Transaction, consigned: Consignment, sop_instance_uid: str, at: datetime
) -> None:
    """Note that it is being sent: from now on the PACS may have it, whatever we hear."""
    record(transaction, consigned, Sent(sop_instance_uid, PENDING, "", ""), at)


def doubt(
    transaction: Transaction, consigned: Consignment, uids: Sequence[str], at: datetime
) -> None:
    """Note that the PACS does not stand by having taken these: they are to be sent again."""
    transaction.connection.execute(
        attachment.update()
        .where(
            attachment.c.destination == consigned.destination,
            attachment.c.sop_instance_uid.in_(uids),
        )
        .values(status=PENDING, answered_at=at)
    )


def record(transaction: Transaction, consigned: Consignment, sent: Sent, at: datetime) -> None:
    """Keep an answer in place of the one before."""
    columns = attachment.c
    is_this = and_(
        columns.destination == consigned.destination,
        columns.sop_instance_uid == sent.sop_instance_uid,
    )
    before = transaction.connection.execute(select(attachment).where(is_this)).one_or_none()
    was_unanswered = before is not None and (
        before.was_unanswered or before.status == sent.status == PENDING
    )
    transaction.connection.execute(delete(attachment).where(is_this))
    transaction.connection.execute(
        attachment.insert(),
        {
            "destination": consigned.destination,
            "sop_instance_uid": sent.sop_instance_uid,
            "case_id": consigned.case_id,
            "case_version": consigned.case_version,
            "status": sent.status,
            "was_unanswered": was_unanswered,
            "error_comment": sent.error_comment,
            "transfer_syntax_uid": sent.transfer_syntax_uid,
            "answered_at": at,
        },
    )


def keys(connection: Connection, consigned: Consignment, uids: Sequence[str]) -> dict[str, str]:
    """Return where the store keeps results, notes and received instances of the study."""
    received = select(instance.c.sop_instance_uid, instance.c.key).where(
        instance.c.study_instance_uid == consigned.study_instance_uid,
        instance.c.sop_instance_uid.in_(uids),
        instance.c.purged_at.is_(None),
    )
    ours = (
        select(table.c.sop_instance_uid, table.c.key).where(
            table.c.study_instance_uid == consigned.study_instance_uid,
            table.c.sop_instance_uid.in_(uids),
        )
        for table in (result_object, rejection_note)
    )
    # Ours come back from a PACS that routes everything to us: either copy is the same.
    rows = connection.execute(union_all(received, *ours))
    return {row.sop_instance_uid: row.key for row in rows}


def note_contact(
    transaction: Transaction, destination: str, at: datetime, failure: str | None = None
) -> None:
    """Note how it went with a destination this time."""
    columns = destination_contact.c
    transaction.connection.execute(
        transaction.database.insert_new(destination_contact), {"destination": destination}
    )
    values: dict[str, object] = {"succeeded_at": at}
    if failure is not None:
        values = {"failed_at": at, "failure": failure[:LONGEST_REASON]}
    transaction.connection.execute(
        destination_contact.update().where(columns.destination == destination).values(values)
    )
