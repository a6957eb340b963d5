"""What could not be understood: kept until a person has it received once more, or discards it.

So is what the index refuses although its sender has been answered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, BinaryIO

import structlog
from sqlalchemy import Row, delete, select, update

from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome, enter
from dicom_listener.claims import claimed
from dicom_listener.instance_header import InstanceHeader, NotUnderstood
from dicom_listener.part10 import file_meta
from dicom_listener.purging import discard, put_back
from dicom_listener.rereading import Rereader, Source, skip_file_meta
from dicom_listener.store_status import OTHER_SOP_CLASS, OTHER_SOP_INSTANCE
from imaging_store.instances import (
    FileInstanceStore,
    FileSink,
    Kept,
    NotInStore,
    instance_key,
)
from imaging_store.removal import putting_back
from imaging_store.schema.ingest import duplicate_instance, instance, quarantined_instance, removal
from imaging_store.unclaimed import move_aside
from message_contracts.envelope import Envelope
from message_contracts.intake import QuarantineDecided, QuarantineDecision
from service_runtime.database import Database, Transaction
from service_runtime.errors import TransientError
from service_runtime.messaging.consumer import Effect

REFUSED_BY_INDEX = "it was received, and the index would not take it: the log says why"
"""A reason."""

_PIECE_BYTES = 1024 * 1024

log = structlog.get_logger()


class JustPurged(TransientError):
    """The same bytes were kept before, and the purge has let go of them in the same moment."""


class QuarantineOutcome(StrEnum):
    """What has become of something in quarantine."""

    RELEASED = "released"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that could not be understood, and what the command said it was."""

    kept: Kept
    reason: str
    sop_class_uid: str
    sop_instance_uid: str
    source: Source
    at: datetime


@dataclass(frozen=True)
class Quarantine:
    """The handler of ``quarantine.decided``."""

    database: Database
    rereader: Rereader
    now: Callable[[], datetime]

    def on_quarantine_decided(self, envelope: Envelope) -> Effect:
        """Receive something once more by the same checks, or have its bytes removed.

        What still cannot be understood stays in quarantine, with the reason why.

        Raises
        ------
        StorageFull
            Try again when there is room.
        JustPurged
            Try again at once.
        """
        decided = envelope.data(QuarantineDecided)
        with self.database.reading() as connection:
            row = connection.execute(
                select(quarantined_instance).where(
                    quarantined_instance.c.id == decided.quarantined_instance_id
                )
            ).first()
        if row is None or row.outcome is not None:
            return lambda _: None
        at = self.now()
        log.info("quarantine.decided", key=row.key, decision=decided.decision)
        if decided.decision is QuarantineDecision.DISCARD:
            return partial(_settle, row, QuarantineOutcome.DISCARDED, at)
        try:
            arrival = self._received_again(row, at)
        except (NotUnderstood, NotInStore) as error:
            log.warning("quarantine.not_released", key=row.key, reason=str(error))
            return partial(_keep, row, str(error))
        self._put_back(arrival, at)

        def effect(transaction: Transaction) -> None:
            if enter(transaction, [arrival]) == [Outcome.PURGED]:
                raise JustPurged("the instance has just been let go of; it is put back next time")
            _settle(row, QuarantineOutcome.RELEASED, at, transaction)

        return effect

    def _put_back(self, arrival: Arrival, at: datetime) -> None:
        """Have it count as kept again, where it had been received before and was let go of."""
        uid, kept = arrival.header.sop_instance_uid, arrival.kept
        with self.database.reading() as connection:
            is_purged = any(
                connection.execute(
                    select(table.c.key).where(
                        table.c.sop_instance_uid == uid,
                        table.c.digest == kept.digest,
                        table.c.purged_at.is_not(None),
                    )
                ).first()
                for table in (instance, duplicate_instance)
            )
        same = (uid, kept.digest)
        if is_purged and not put_back(self.database, self.rereader.store, kept.key, same, at):
            raise JustPurged("its file has just been removed again; it is kept anew next time")

    def _received_again(self, row: Row[Any], at: datetime) -> Arrival:
        """Return it as it would arrive now, its bytes kept where an instance's are."""
        store = self.rereader.store
        with store.open(row.key) as file:
            # What the command had said, where the row does not tell: it came before we kept that.
            meta = skip_file_meta(file)
            source = Source(
                row.transfer_syntax_uid or meta.transfer_syntax_uid,
                row.calling_ae_title,
                row.called_ae_title,
            )
            header = self.rereader.header(row.key, source.transfer_syntax_uid)
            _require_same(header, row.sop_class_uid or meta.sop_class_uid, row.sop_instance_uid)
            with store.open_write(
                file_meta(
                    header.sop_class_uid,
                    header.sop_instance_uid,
                    source.transfer_syntax_uid,
                    source.calling_ae_title,
                )
            ) as sink:
                _copy_data_set(file, sink)
                key = instance_key(header.study_instance_uid, header.sop_instance_uid, sink.digest)
                kept = sink.commit(key)
        return self.rereader.arrival_of(header, kept, source, at)


def _require_same(header: InstanceHeader, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Refuse what a C-STORE refuses: another instance, or class, than the command named."""
    if header.sop_class_uid != sop_class_uid:
        raise NotUnderstood(OTHER_SOP_CLASS.comment)
    if sop_instance_uid and header.sop_instance_uid != sop_instance_uid:
        raise NotUnderstood(OTHER_SOP_INSTANCE.comment)


def _settle(
    row: Row[Any], outcome: QuarantineOutcome, at: datetime, transaction: Transaction
) -> None:
    transaction.connection.execute(
        update(quarantined_instance)
        .where(quarantined_instance.c.id == row.id)
        .values(outcome=str(outcome), settled_at=at)
    )
    discard(transaction, [row.key, reason_key(row.id)], at)


def _keep(row: Row[Any], reason: str, transaction: Transaction) -> None:
    transaction.connection.execute(
        update(quarantined_instance)
        .where(quarantined_instance.c.id == row.id)
        .values(reason=reason[:200])
    )


def put(database: Database, store: FileInstanceStore, thing: Quarantined) -> bool:
    """Enter what could not be understood; return whether its bytes are there to be read.

    The same bytes again are entered once. What a person had settled before is open again.
    """
    source, at, key = thing.source, thing.at, thing.kept.key
    row = {
        "id": thing.kept.digest,
        "reason": thing.reason[:200],
        "calling_ae_title": source.calling_ae_title[:16],
        "called_ae_title": source.called_ae_title[:16],
        "transfer_syntax_uid": source.transfer_syntax_uid[:64],
        "sop_class_uid": thing.sop_class_uid[:64],
        "sop_instance_uid": thing.sop_instance_uid[:64],
        "key": key,
        "size_bytes": thing.kept.size_bytes,
        "received_at": at,
    }
    columns = quarantined_instance.c
    with putting_back(store.root):
        if not store.is_durable(key):
            return False
        with database.transaction() as transaction:
            connection = transaction.connection
            connection.execute(transaction.database.insert_new(quarantined_instance), row)
            connection.execute(
                update(quarantined_instance)
                .where(columns.id == row["id"], columns.outcome.is_not(None))
                .values({**row, "outcome": None, "settled_at": None})
            )
            connection.execute(
                delete(removal).where(removal.c.key.in_([key, reason_key(thing.kept.digest)]))
            )
    return True


def set_aside(
    database: Database, store: FileInstanceStore, arrival: Arrival, reason: str, now: datetime
) -> None:
    """Put an instance in quarantine that was kept and answered for, and cannot be entered.

    A person may have it received once more. Its own file is moved aside, where the retention ends
    it: nobody will claim it.

    Raises
    ------
    DatabaseUnavailable, StorageFull, JustPurged
        It is as it was, or in quarantine already; try again.
    NotInStore
        It is not kept any more.
    NotUnderstood
        Its file is damaged.
    """
    header, key = arrival.header, arrival.kept.key
    source = Source(arrival.transfer_syntax_uid, arrival.calling_ae_title, arrival.called_ae_title)
    meta = file_meta(
        header.sop_class_uid,
        header.sop_instance_uid,
        source.transfer_syntax_uid,
        source.calling_ae_title,
    )
    with store.open(key) as file, store.open_write(meta) as sink:
        _copy_data_set(file, sink)
        store.put_artifact(reason_key(sink.digest), f"{reason}\n".encode())
        # First: nobody looks there for what a power cut has left damaged.
        sink.sync()
        kept = sink.commit(quarantine_key(sink.digest))
    thing = Quarantined(kept, reason, header.sop_class_uid, header.sop_instance_uid, source, now)
    if not put(database, store, thing):
        raise JustPurged("what a person had discarded has just been removed; it is kept next time")
    log.warning("instance.quarantined", reason=reason, key=kept.key)
    move_aside(store.root, key, now, lambda key: key in claimed(database, [key]), now)


def _copy_data_set(file: BinaryIO, sink: FileSink) -> None:
    skip_file_meta(file)
    while piece := file.read(_PIECE_BYTES):
        sink.write(piece)


def quarantine_key(digest: str) -> str:
    """Return the key under which something in quarantine is kept."""
    return f"quarantine/{digest}.dcm"


def reason_key(digest: str) -> str:
    """Return the key of the text beside it that says why."""
    return f"quarantine/{digest}.reason.txt"
