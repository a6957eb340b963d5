"""What puts a study on hold though nothing of it need have arrived yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, select, tuple_

from dicom_listener.announcements import study_doubted
from imaging_store.schema.ingest import early_conflict, study
from message_contracts.envelope import Envelope
from message_contracts.ingest import ConflictReason
from service_runtime.database import Database, Transaction
from service_runtime.messaging import outbox

_BATCH = 50


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a study has to wait for a person."""

    study_instance_uid: str
    sop_instance_uid: str
    """Of what says so: a procedure step, or a Key Object Selection."""
    reason: ConflictReason


def tell(transaction: Transaction, doubts: Iterable[Doubt], at: datetime) -> None:
    """Say that studies are in doubt: now, or as soon as something of them has arrived."""
    doubts = tuple(doubts)
    if not doubts:
        return
    known = _known(transaction.connection, {doubt.study_instance_uid for doubt in doubts})
    for doubt in doubts:
        if doubt.study_instance_uid in known:
            outbox.send(transaction, _conflict(doubt, at))
        else:
            transaction.connection.execute(
                transaction.database.insert_new(early_conflict),
                {
                    "study_instance_uid": doubt.study_instance_uid,
                    "sop_instance_uid": doubt.sop_instance_uid,
                    "reason": str(doubt.reason),
                    "noted_at": at,
                },
            )


def tell_of_arrived(database: Database, now: datetime) -> None:
    """Say what was noted of studies of which something has arrived since."""
    with database.reading() as connection:
        arrived = connection.execute(_ARRIVED).all()
    if not arrived:
        return
    with database.transaction() as transaction:
        for row in arrived:
            outbox.send(transaction, _conflict(_doubt(row), now))
        columns = early_conflict.c
        transaction.connection.execute(
            delete(early_conflict).where(
                tuple_(columns.study_instance_uid, columns.sop_instance_uid).in_(
                    [(row.study_instance_uid, row.sop_instance_uid) for row in arrived]
                )
            )
        )


_ARRIVED = (
    select(early_conflict)
    .join(study, study.c.study_instance_uid == early_conflict.c.study_instance_uid)
    .limit(_BATCH)
)


def _known(connection: Connection, study_instance_uids: set[str]) -> set[str]:
    column = study.c.study_instance_uid
    return set(
        connection.execute(select(column).where(column.in_(sorted(study_instance_uids)))).scalars()
    )


def _doubt(row: Row[Any]) -> Doubt:
    return Doubt(row.study_instance_uid, row.sop_instance_uid, ConflictReason(row.reason))


def _conflict(doubt: Doubt, at: datetime) -> Envelope:
    return study_doubted(doubt.study_instance_uid, doubt.sop_instance_uid, doubt.reason, at)
