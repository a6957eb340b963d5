"""What becomes of an instance that comes again with other bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from dicom_listener.differences import Kind
from imaging_store.schema.ingest import (
    conflict,
    conflicting_instance,
    duplicate_instance,
    instance,
    study,
)
from message_contracts.ingest import (
    CompletionReason,
    ConflictReason,
    StudyConflicted,
    StudyReceived,
    StudyUpdated,
)
from message_contracts.intake import ConflictDecision, ConflictSettled
from tests.integration.dicom_listener.listener import a_slice, sendable
from tests.integration.dicom_listener.reading_room import ReadingRoom, again, completed, of

KEEP, REPLACE, EXCLUDE = ConflictDecision


def test_the_same_in_another_encoding_is_noted_only(room: ReadingRoom) -> None:
    first = a_slice()
    other = again(first, SpecificCharacterSet="ISO_IR 100")

    assert room.arrive(first, other, other) == [0x0000] * 3
    room.handle()

    assert room.row(duplicate_instance).difference == Kind.ENCODING
    assert room.rows(conflict) == []


def test_an_update_of_the_order_is_shown_and_does_not_hold(room: ReadingRoom) -> None:
    first = a_slice(AccessionNumber="A1")
    room.arrive(first, again(first, AccessionNumber="A2", PatientName="DOE^JANE"))
    room.handle()

    found = room.row(conflict)

    assert room.row(duplicate_instance).difference == Kind.ATTRIBUTES
    assert (found.kind, found.holds) == ("update", False)
    assert found.differing == ["AccessionNumber", "PatientName"]
    assert (found.known["AccessionNumber"], found.claimed["AccessionNumber"]) == ("A1", "A2")
    assert room.said(StudyConflicted) == []


def test_an_update_of_the_patient_holds_once_for_a_whole_study(room: ReadingRoom) -> None:
    firsts = [first := a_slice(), of(first), of(first)]
    room.arrive(*firsts, *(again(each, PatientID="P2") for each in firsts))
    room.handle()

    found = room.row(conflict)

    assert (found.kind, found.holds, found.differing) == ("update", True, ["PatientID"])
    assert len(room.rows(conflicting_instance)) == 3
    assert [body.reason for body in room.said(StudyConflicted)] == [
        ConflictReason.IDENTITY_CONFLICT
    ]


def test_an_accepted_update_takes_the_place(room: ReadingRoom) -> None:
    firsts = [first := a_slice(), of(first)]
    updates = [again(each, PatientID="P2", PatientName="Roe^Jo") for each in firsts]
    room.arrive(*firsts, *updates)
    room.handle()
    room.become_quiet()

    room.decide(room.row(conflict).id, REPLACE, first.StudyInstanceUID)

    for old, new in zip(firsts, updates, strict=True):
        kept = room.row(instance, sop_instance_uid=old.SOPInstanceUID)
        beside = room.row(duplicate_instance, sop_instance_uid=old.SOPInstanceUID)
        assert room.store.read(kept.key).endswith(sendable(new).data)
        assert room.store.read(beside.key).endswith(sendable(old).data)
    assert room.row(study).patient_name == "Roe^Jo"
    assert completed(room)[1:] == [(2, 2, CompletionReason.SETTLED)]
    # Either may come again: both are known.
    assert room.arrive(*firsts, *updates) == [0x0000] * 4
    room.handle()
    assert len(room.rows(conflict)) == 1
    assert len(room.rows(duplicate_instance)) == 2


def test_an_excluded_instance_that_comes_again_put_right_counts(room: ReadingRoom) -> None:
    first = a_slice()
    wrong = of(first, PatientID="P2")
    room.arrive(first, wrong)
    room.become_quiet()
    room.decide(room.row(conflict).id, EXCLUDE, first.StudyInstanceUID)

    room.arrive(again(wrong, PatientID="P1"))
    room.handle()

    update = room.row(conflict, kind="update")
    assert not update.holds
    room.decide(update.id, REPLACE, first.StudyInstanceUID)
    assert [row.excluded_at for row in room.rows(instance)] == [None, None]
    assert completed(room)[1:] == [
        (2, 1, CompletionReason.SETTLED),
        (3, 2, CompletionReason.SETTLED),
    ]


@pytest.mark.parametrize(
    "changes", [{"PixelData": b"\1" * 128}, {"SeriesInstanceUID": "1.2"}, {"InstanceNumber": 7}]
)
def test_other_content_holds_the_case(room: ReadingRoom, changes: dict[str, object]) -> None:
    first = a_slice()
    room.arrive(first, again(first, **changes))
    room.handle()

    found = room.row(conflict)

    assert (found.kind, found.holds, found.differing) == ("instance", True, list(changes))
    assert [body.reason for body in room.said(StudyConflicted)] == [
        ConflictReason.INSTANCE_CONFLICT
    ]


@pytest.mark.parametrize("decision", [KEEP, EXCLUDE])
def test_the_first_stays_where_the_newcomer_is_not_believed(
    room: ReadingRoom, decision: ConflictDecision
) -> None:
    first = a_slice()
    room.arrive(first, again(first, InstanceNumber=7))
    room.handle()
    room.become_quiet()

    room.decide(room.row(conflict).id, decision, first.StudyInstanceUID)

    assert room.store.read(room.row(instance).key).endswith(sendable(first).data)
    assert room.row(conflict).decision == decision
    assert len(completed(room)) == 1


def test_the_newcomers_content_takes_the_place(room: ReadingRoom) -> None:
    first = a_slice()
    newcomer = again(first, InstanceNumber=7, SeriesInstanceUID="1.2.3", Modality="MR")
    room.arrive(first, newcomer)
    room.handle()
    room.become_quiet()

    room.decide(room.row(conflict).id, REPLACE, first.StudyInstanceUID)

    kept = room.row(instance)
    assert room.store.read(kept.key).endswith(sendable(newcomer).data)
    assert (kept.series_instance_uid, kept.modality, kept.study_version) == ("1.2.3", "MR", 2)
    beside = room.row(duplicate_instance)
    assert room.store.read(beside.key).endswith(sendable(first).data)
    room.become_quiet()
    assert completed(room)[1:] == [(2, 1, CompletionReason.QUIET)]
    assert [body.study_version for body in room.said(ConflictSettled)] == [2]


def test_an_instance_may_move_to_the_study_that_it_names_now(room: ReadingRoom) -> None:
    first = a_slice()
    other = of(first)
    moved = again(first, StudyInstanceUID="1.9.9")
    room.arrive(first, other, moved)
    room.handle()
    room.become_quiet()

    room.decide(room.row(conflict).id, REPLACE, first.StudyInstanceUID)
    room.become_quiet()

    assert room.row(instance, sop_instance_uid=first.SOPInstanceUID).study_instance_uid == "1.9.9"
    assert [
        (body.study_instance_uid, body.study_version, body.instance_count)
        for body in room.said(StudyReceived, StudyUpdated)
    ] == [
        (first.StudyInstanceUID, 1, 2),
        (first.StudyInstanceUID, 2, 1),
        ("1.9.9", 1, 1),
    ]


def test_a_first_that_cannot_be_read_any_more_is_for_a_person(room: ReadingRoom) -> None:
    first = a_slice()
    room.arrive(first)
    room.store.path(room.row(instance).key).unlink()

    room.arrive(again(first, SpecificCharacterSet="ISO_IR 100"))
    room.handle()

    assert (room.row(conflict).kind, room.row(conflict).holds) == ("instance", True)


def let_go_of(room: ReadingRoom, *uids: str) -> None:
    """Have the bytes of instances purged."""
    for uid in uids:
        row = room.row(instance, sop_instance_uid=uid)
        room.store.path(row.key).unlink()
        with room.database.transaction() as transaction:
            transaction.connection.execute(
                update(instance)
                .where(instance.c.sop_instance_uid == uid)
                .values(purged_at=room.now())
            )


def test_a_purged_first_and_a_newcomer_that_says_the_same_are_noted_only(
    room_in_sqlite: ReadingRoom,
) -> None:
    room = room_in_sqlite
    first = a_slice(AccessionNumber="A1", PatientBirthDate="19700101")
    room.arrive(first)
    let_go_of(room, first.SOPInstanceUID)

    room.arrive(again(first, AccessionNumber="A1", PatientBirthDate="", StationName="X"))
    room.handle()

    assert room.row(duplicate_instance).difference == Kind.UNCOMPARED
    assert room.rows(conflict) == []


def test_a_purged_study_sent_again_with_another_accession_number_is_one_update(
    room_in_sqlite: ReadingRoom,
) -> None:
    room = room_in_sqlite
    firsts = [first := a_slice(AccessionNumber="A1"), of(a_slice(), AccessionNumber="A1")]
    firsts[1].StudyInstanceUID = first.StudyInstanceUID
    room.arrive(*firsts)
    room.become_quiet()
    let_go_of(room, *(each.SOPInstanceUID for each in firsts))

    resent = [again(each, AccessionNumber="A2") for each in firsts]
    room.arrive(*resent)
    room.handle()

    found = room.row(conflict)
    assert (found.kind, found.holds, found.differing) == ("update", False, ["AccessionNumber"])
    assert (found.known["AccessionNumber"], found.claimed["AccessionNumber"]) == ("A1", "A2")
    assert len(room.rows(conflicting_instance)) == 2
    assert room.said(StudyConflicted) == []
    room.decide(found.id, REPLACE, first.StudyInstanceUID)
    assert room.row(study).accession_number == "A2"
    kept = room.row(instance, sop_instance_uid=first.SOPInstanceUID)
    assert room.store.read(kept.key).endswith(sendable(resent[0]).data)
    assert kept.purged_at is None


def test_a_purged_first_that_comes_again_as_another_patients_holds_the_case(
    room_in_sqlite: ReadingRoom,
) -> None:
    room = room_in_sqlite
    first = a_slice()
    room.arrive(first)
    let_go_of(room, first.SOPInstanceUID)

    room.arrive(again(first, PatientID="P2"))
    room.handle()

    found = room.row(conflict)
    assert (found.kind, found.holds, found.differing) == ("update", True, ["PatientID"])


def test_a_purged_first_that_comes_again_in_another_series_holds_the_case(
    room_in_sqlite: ReadingRoom,
) -> None:
    room = room_in_sqlite
    first = a_slice()
    room.arrive(first)
    let_go_of(room, first.SOPInstanceUID)

    room.arrive(again(first, SeriesInstanceUID="1.2"))
    room.handle()

    found = room.row(conflict)
    assert (found.kind, found.holds, found.differing) == ("instance", True, ["SeriesInstanceUID"])


def test_a_newcomer_that_was_let_go_of_uncompared_contradicts_nothing(
    room_in_sqlite: ReadingRoom,
) -> None:
    room = room_in_sqlite
    first = a_slice()
    room.arrive(first, again(first, InstanceNumber=7))
    with room.database.transaction() as transaction:
        transaction.connection.execute(update(duplicate_instance).values(purged_at=room.now()))

    room.handle()

    assert room.rows(conflict) == []


def test_a_newcomer_that_no_library_can_read_is_for_a_person(room: ReadingRoom) -> None:
    it = sendable(a_slice())
    without_an_end = b"\xe1\x7f\x10\x00SQ\0\0\xff\xff\xff\xff" + b"no item"
    room.arrive(it, replace(it, data=it.data + without_an_end))

    room.handle()

    assert room.row(duplicate_instance).difference == Kind.CONTENT
    assert room.row(conflict).claimed == {}
    assert len(room.said(StudyConflicted)) == 1


def test_a_newcomer_that_a_library_fails_to_compare_is_for_a_person(
    room: ReadingRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError

    first = a_slice()
    room.arrive(first, again(first, PatientID="P2"))
    monkeypatch.setattr("dicom_listener.duplicates.compare", fail)

    room.handle()

    assert room.row(duplicate_instance).difference == Kind.CONTENT
    assert room.row(conflict).claimed == {}
    assert len(room.said(StudyConflicted)) == 1


def test_a_newcomer_that_its_comparer_dies_of_is_for_a_person(room: ReadingRoom) -> None:
    first = a_slice()
    room.arrive(first, again(first, PatientID="P2"))

    room.give_up()

    assert room.row(duplicate_instance).difference == Kind.CONTENT
    assert (room.row(conflict).kind, room.row(conflict).holds) == ("instance", True)
    assert len(room.said(StudyConflicted)) == 1
