"""What a Key Object Selection that rejects instances does to the studies they are of."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select

from dicom_listener import early_conflicts
from dicom_listener.early_conflicts import Doubt
from dicom_listener.instance_header import InstanceHeader
from imaging_store.schema.delivery import rejection_note
from message_contracts.identifiers import derived_uid
from message_contracts.ingest import ConflictReason
from service_runtime.database import Transaction

_SENDER_DEVICE_UID = derived_uid("device", "dicom_sender")
"""Contributing Equipment of the notes that we send."""


def tell_of_rejections(
    transaction: Transaction, note: InstanceHeader, study_instance_uids: Iterable[str], at: datetime
) -> None:
    """Have studies wait for a person, unless we have made the note and a PACS sends it back."""
    if _SENDER_DEVICE_UID in note.contributing_device_uids:
        return
    ours = select(rejection_note.c.sop_instance_uid).where(
        rejection_note.c.sop_instance_uid == note.sop_instance_uid
    )
    if transaction.connection.execute(ours).first() is not None:
        return
    doubts = [
        Doubt(uid, note.sop_instance_uid, ConflictReason.INSTANCES_REJECTED)
        for uid in study_instance_uids
    ]
    early_conflicts.tell(transaction, doubts, at)
