"""What becomes of what could not be understood, when a person has decided."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from dicom_listener import quarantine
from dicom_listener.part10 import file_meta
from dicom_listener.quarantine import JustPurged
from imaging_store.schema.ingest import instance, quarantined_instance
from message_contracts.intake import QuarantineDecided, QuarantineDecision
from tests.integration.dicom_listener.listener import Sendable, a_slice, sendable
from tests.integration.dicom_listener.reading_room import ReadingRoom


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
