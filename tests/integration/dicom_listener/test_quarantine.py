"""What becomes of what could not be understood, when a person has decided."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from unittest.mock import Mock

import pytest
from pydicom import dcmread
from sqlalchemy import update

from dicom_listener import quarantine
from dicom_listener.arrival import Arrival
from dicom_listener.index import OwnIndex
from dicom_listener.part10 import file_meta
from dicom_listener.quarantine import REFUSED_BY_INDEX, JustPurged, reason_key, set_aside
from dicom_listener.rereading import Rereader, Source
from imaging_store.instances import instance_key
from imaging_store.schema.ingest import instance, quarantined_instance
from message_contracts.intake import QuarantineDecided, QuarantineDecision
from tests.integration.dicom_listener.listener import Sendable, a_slice, sendable
from tests.integration.dicom_listener.reading_room import SITE, ReadingRoom


@pytest.fixture
def in_quarantine(room_in_sqlite: ReadingRoom) -> ReadingRoom:
    """Have an instance that was received, let go of, and came again when nobody understood it."""
    room = room_in_sqlite
    good = sendable(a_slice())
    room.arrive(good)
    with room.database.transaction() as transaction:
        transaction.connection.execute(update(instance).values(purged_at=room.now()))
    room.store.path(room.row(instance).key).unlink()
    cut_off = Sendable(
        good.data[:20], good.transfer_syntax_uid, good.sop_class_uid, good.sop_instance_uid
    )
    assert room.arrive(cut_off) == [0xC000]
    # As after an upgrade: the parser makes sense of what lies there.
    header = file_meta(
        good.sop_class_uid, good.sop_instance_uid, good.transfer_syntax_uid, "MODALITY"
    )
    room.store.path(room.row(quarantined_instance).key).write_bytes(header + good.data)
    return room


def release(room: ReadingRoom) -> None:
    room.send(
        QuarantineDecided(
            quarantined_instance_id=room.row(quarantined_instance).id,
            decision=QuarantineDecision.RELEASE,
            decided_by="ada",
        )
    )
    room.handle()


def test_what_was_let_go_of_is_kept_again_when_it_is_released(in_quarantine: ReadingRoom) -> None:
    release(in_quarantine)

    kept = in_quarantine.row(instance)
    assert kept.purged_at is None
    assert in_quarantine.store.exists(kept.key)
    assert in_quarantine.row(quarantined_instance).outcome == "released"


def test_what_is_let_go_of_in_the_same_moment_stays_in_quarantine_until_it_is_kept(
    in_quarantine: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as removed:
        removed.setattr(quarantine, "put_back", lambda *_: False)
        with pytest.raises(JustPurged):
            release(in_quarantine)
    assert in_quarantine.row(quarantined_instance).outcome is None

    in_quarantine.handle()

    assert in_quarantine.row(instance).purged_at is None


def an_arrival_in(room: ReadingRoom) -> Arrival:
    """Keep an instance as a receiving process does, and enter it nowhere."""
    sent = sendable(a_slice())
    uid, syntax = sent.sop_instance_uid, sent.transfer_syntax_uid
    with room.store.open_write(file_meta(sent.sop_class_uid, uid, syntax, "MODALITY")) as sink:
        sink.write(sent.data)
        study = str(dcmread(BytesIO(sent.data), force=True).StudyInstanceUID)
        kept = sink.commit(instance_key(study, uid, sink.digest))
    source = Source(syntax, "MODALITY", "COUNTERSIGN")
    return Rereader(room.store, lambda _: SITE).arrival(kept, source, room.now())


def test_what_the_index_refuses_is_set_aside_until_a_person_has_it_received(
    room: ReadingRoom,
) -> None:
    arrival = an_arrival_in(room)
    set_aside(room.database, room.store, arrival, REFUSED_BY_INDEX, datetime.now(UTC))

    row = room.row(quarantined_instance)
    assert (row.id, row.size_bytes) == (arrival.kept.digest, arrival.kept.size_bytes)
    assert (row.sop_instance_uid, row.calling_ae_title, row.called_ae_title, row.reason) == (
        arrival.header.sop_instance_uid,
        "MODALITY",
        "COUNTERSIGN",
        REFUSED_BY_INDEX,
    )
    assert room.store.read(reason_key(row.id)).decode() == f"{REFUSED_BY_INDEX}\n"
    assert not room.store.exists(arrival.kept.key)
    aside = room.store.root / "unclaimed" / Path(arrival.kept.key).name
    assert aside.read_bytes() == room.store.read(row.key)
    release(room)
    assert room.row(instance).key == arrival.kept.key
    assert room.store.exists(arrival.kept.key)


def test_who_is_killed_while_it_sets_aside_does_it_once_more(
    room_in_sqlite: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = room_in_sqlite
    arrival = an_arrival_in(room)
    for killed_at in ("put", "move_aside"):
        with monkeypatch.context() as killed:
            killed.setattr(quarantine, killed_at, Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                set_aside(room.database, room.store, arrival, "", datetime.now(UTC))
        assert room.store.exists(arrival.kept.key)

    set_aside(room.database, room.store, arrival, "", datetime.now(UTC))

    assert room.row(quarantined_instance).outcome is None
    assert not room.store.exists(arrival.kept.key)


def test_what_was_entered_meanwhile_stays_where_it_is(room_in_sqlite: ReadingRoom) -> None:
    room = room_in_sqlite
    arrival = an_arrival_in(room)
    OwnIndex(room.database).add(arrival)

    set_aside(room.database, room.store, arrival, "", datetime.now(UTC))

    assert room.store.exists(room.row(instance).key)
