"""Rejection notes: made once, kept, and the same bytes whenever they are sent again."""

from datetime import datetime, tzinfo
from io import BytesIO

import pydicom
from sqlalchemy import Connection, select

from dicom_sender.attachments import Consignment
from dicom_sender.rejection_note import Note, Reference, make
from imaging_store.instances import InstanceStore
from imaging_store.schema.delivery import rejection_note
from imaging_store.schema.results import result_object
from service_runtime.database import Database
from service_runtime.errors import PermanentError


class NothingKnown(PermanentError):
    """What is to be rejected is no result of ours."""


def keep_note(
    database: Database,
    store: InstanceStore,
    consigned: Consignment,
    rejected: tuple[str, ...],
    at: tuple[datetime, tzinfo],
) -> str:
    """Return the SOP Instance UID of the note about these, made and kept if it was not.

    Raises
    ------
    NothingKnown
        None of them is a result of ours.
    """
    with database.reading() as connection:
        rows = connection.execute(
            select(result_object)
            .where(
                result_object.c.study_instance_uid == consigned.study_instance_uid,
                result_object.c.sop_instance_uid.in_(rejected),
            )
            .order_by(result_object.c.sop_instance_uid)
        ).all()
        if not rows:
            raise NothingKnown("what is to be rejected is no result that was made here")
        references = tuple(
            Reference(row.series_instance_uid, row.sop_class_uid, row.sop_instance_uid)
            for row in rows
        )
        note = Note(consigned.study_instance_uid, references, *at)
        if _is_kept(connection, note.sop_instance_uid):
            return note.sop_instance_uid
    source = pydicom.dcmread(BytesIO(store.read(rows[0].key)), stop_before_pixels=True)
    key = (
        f"results/{consigned.case_id}/v{consigned.case_version}/"
        f"rejection-{note.sop_instance_uid}.dcm"
    )
    store.put_artifact(key, make(note, source))
    with database.transaction() as transaction:
        transaction.connection.execute(
            database.insert_new(rejection_note),
            {
                "sop_instance_uid": note.sop_instance_uid,
                "study_instance_uid": consigned.study_instance_uid,
                "case_id": consigned.case_id,
                "case_version": consigned.case_version,
                "key": key,
                "made_at": note.at,
            },
        )
    return note.sop_instance_uid


def _is_kept(connection: Connection, sop_instance_uid: str) -> bool:
    found = select(rejection_note.c.key).where(
        rejection_note.c.sop_instance_uid == sop_instance_uid
    )
    return connection.execute(found).first() is not None
