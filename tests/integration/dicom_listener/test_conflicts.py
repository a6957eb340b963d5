"""What contradicts a study, and what becomes of it when a person has decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_listener.settlement import CannotBeSettled
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
)
from message_contracts.intake import (
    ConflictDecided,
    ConflictDecision,
    ConflictSettled,
    ConflictUnsettled,
    UnsettledReason,
)
from tests.integration.dicom_listener.listener import a_slice
from tests.integration.dicom_listener.reading_room import ReadingRoom, again, completed, of

KEEP, REPLACE, EXCLUDE = ConflictDecision


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"PatientID": "P2"}, ["PatientID"]),
        ({"PatientID": ""}, ["PatientID"]),
        ({"IssuerOfPatientID": "ELSEWHERE"}, ["IssuerOfPatientID"]),
        ({"PatientName": "Roe^Jane"}, ["PatientName"]),
    ],
)
def test_another_patient_is_kept_and_asked_about_once(
    room: ReadingRoom, changes: dict[str, str], differing: list[str]
) -> None:
    first = a_slice()
    others = [of(first, **changes) for _ in range(3)]

    statuses = room.arrive(first, *others)

    assert statuses == [0x0000] * 4
    assert len(room.rows(instance)) == 4
    found = room.row(conflict)
    assert (found.kind, found.holds, found.differing) == ("identity", True, differing)
    assert found.known["PatientID"] == "P1"
    assert found.claimed["PatientID"] == changes.get("PatientID", "P1")
    assert {row.sop_instance_uid for row in room.rows(conflicting_instance)} == {
        each.SOPInstanceUID for each in others
    }
    assert room.said(StudyConflicted) == [
        StudyConflicted(
            study_instance_uid=first.StudyInstanceUID,
            sop_instance_uid=others[0].SOPInstanceUID,
            reason=ConflictReason.IDENTITY_CONFLICT,
            conflict_id=found.id,
        )
    ]
    assert room.row(study).patient_id == "P1"


def test_two_other_patients_are_two_conflicts(room: ReadingRoom) -> None:
    first = a_slice()

    room.arrive(first, of(first, PatientID="P2"), of(first, PatientID="P3"))

    assert len({body.conflict_id for body in room.said(StudyConflicted)}) == 2


def test_a_study_without_a_patient_id_is_a_conflict_from_the_start(room: ReadingRoom) -> None:
    room.arrive(a_slice(PatientID=""))

    assert len(room.said(StudyConflicted)) == 1


def test_harmless_variants_are_no_conflict(room: ReadingRoom) -> None:
    first = a_slice(PatientName="Müller^Jane", PatientBirthDate="19700101")
    latin = of(first, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jane")
    shouted = of(first, PatientName="MÜLLER^JANE^^^", PatientBirthDate="")

    room.arrive(first, latin, shouted)

    assert room.rows(conflict) == []


def test_what_is_known_of_a_patient_grows(room: ReadingRoom) -> None:
    first = a_slice(PatientName="")
    room.arrive(first, of(first, PatientBirthDate="19700101"), of(first))

    known = room.row(study)

    assert (known.patient_name, known.patient_birth_date) == ("Doe^Jane", "19700101")


def test_kept_means_that_later_ones_raise_nothing(room: ReadingRoom) -> None:
    first = a_slice()
    room.arrive(first, of(first, PatientID="P2"))
    room.become_quiet()

    room.decide(room.row(conflict).id, KEEP, first.StudyInstanceUID)
    room.arrive(of(first, PatientID="P2"))

    found = room.row(conflict)
    assert (found.decision, found.decided_by) == ("keep", "ada")
    assert len(room.said(StudyConflicted)) == 1
    assert [body.study_version for body in room.said(ConflictSettled)] == [None]
    room.become_quiet()
    assert completed(room) == [(1, 2, CompletionReason.QUIET), (2, 3, CompletionReason.QUIET)]


def test_replaced_means_that_the_study_is_the_newcomers(room: ReadingRoom) -> None:
    first = a_slice(AccessionNumber="A1")
    room.arrive(first, of(first, PatientID="P2", PatientName="Roe^Jo", AccessionNumber="A2"))
    room.become_quiet()

    room.decide(room.row(conflict).id, REPLACE, first.StudyInstanceUID)

    known = room.row(study)
    assert (known.patient_id, known.patient_name) == ("P2", "Roe^Jo")
    assert (known.accession_number, known.issuer_of_patient_id) == ("A2", "LOCAL")
    assert completed(room)[1:] == [(2, 2, CompletionReason.SETTLED)]
    assert [body.study_version for body in room.said(ConflictSettled)] == [2]
    # Instances with the identity that was put right are this study's, and with the new one too.
    room.arrive(of(first), of(first, PatientID="P2", PatientName="Roe^Jo"))
    assert len(room.said(StudyConflicted)) == 1
    assert room.arrive(of(first, PatientID="P3")) == [0x0000]
    assert len(room.said(StudyConflicted)) == 2


def test_excluded_means_that_nobody_counts_or_reads_them(room: ReadingRoom) -> None:
    first = a_slice()
    wrong = of(first, PatientID="P2")
    room.arrive(first, wrong)
    room.become_quiet()

    room.decide(room.row(conflict).id, EXCLUDE, first.StudyInstanceUID)
    late = of(first, PatientID="P2")
    room.arrive(late)
    room.become_quiet()

    excluded = {row.sop_instance_uid for row in room.rows(instance) if row.excluded_at}
    assert excluded == {wrong.SOPInstanceUID, late.SOPInstanceUID}
    assert completed(room) == [(1, 2, CompletionReason.QUIET), (2, 1, CompletionReason.SETTLED)]
    assert len(room.said(StudyConflicted)) == 1


def test_a_study_of_which_all_is_excluded_has_a_version_of_nothing(room: ReadingRoom) -> None:
    only = a_slice(PatientID="")
    room.arrive(only)
    room.become_quiet()

    room.decide(room.row(conflict).id, EXCLUDE, only.StudyInstanceUID)

    assert completed(room)[1:] == [(2, 0, CompletionReason.SETTLED)]


def test_excluding_what_nobody_has_seen_makes_no_version(room: ReadingRoom) -> None:
    first = a_slice()
    room.arrive(first)
    room.become_quiet()
    room.arrive(of(first, PatientID="P2"))

    room.decide(room.row(conflict).id, EXCLUDE, first.StudyInstanceUID)
    room.become_quiet()

    assert [version for version, _, _ in completed(room)] == [1]
    assert [body.study_version for body in room.said(ConflictSettled)] == [None]


def test_a_version_that_a_decision_waits_for_comes_though_nothing_new_is_left_of_it(
    room: ReadingRoom,
) -> None:
    first = a_slice()
    room.arrive(first, of(first, PatientID="P2"))
    room.become_quiet()
    room.arrive(of(first, PatientID="P3"))
    of_p2, of_p3 = (row.id for row in sorted(room.rows(conflict), key=lambda row: row.opened_at))

    room.decide(of_p2, EXCLUDE, first.StudyInstanceUID)
    room.decide(of_p3, EXCLUDE, first.StudyInstanceUID)
    room.become_quiet()

    assert [body.study_version for body in room.said(ConflictSettled)] == [2, None]
    assert [version for version, _, _ in completed(room)] == [1, 2]


def test_a_pending_version_has_the_correction_too(room: ReadingRoom) -> None:
    first = a_slice()
    room.arrive(first)
    room.become_quiet()
    room.arrive(of(first, PatientID="P2"))

    room.decide(room.row(conflict).id, REPLACE, first.StudyInstanceUID)

    assert [body.study_version for body in room.said(ConflictSettled)] == [2]
    assert len(completed(room)) == 1
    room.become_quiet()
    assert completed(room)[1:] == [(2, 2, CompletionReason.QUIET)]


def test_decided_while_the_first_version_arrives_it_makes_none(room: ReadingRoom) -> None:
    first = a_slice()
    room.arrive(first, of(first, PatientID="P2"))

    room.decide(room.row(conflict).id, REPLACE, first.StudyInstanceUID)

    assert [body.study_version for body in room.said(ConflictSettled)] == [None]
    room.become_quiet()
    assert completed(room) == [(1, 2, CompletionReason.QUIET)]
    assert room.row(study).patient_id == "P2"


def test_a_conflict_is_settled_once(room: ReadingRoom) -> None:
    first = a_slice()
    room.arrive(first, of(first, PatientID="P2"))
    found = room.row(conflict)
    room.decide(found.id, KEEP, first.StudyInstanceUID)

    room.decide(found.id, EXCLUDE, first.StudyInstanceUID)
    room.send(
        ConflictDecided(
            conflict_id=found.id,
            study_instance_uid=str(first.StudyInstanceUID),
            decision=EXCLUDE,
            decided_by="bea",
        )
    )
    room.handle()

    assert (room.row(conflict).decision, room.row(conflict).decided_by) == ("keep", "ada")
    assert len(room.said(ConflictSettled)) == 1


def test_a_conflict_that_nobody_has_opened_cannot_be_settled(room: ReadingRoom) -> None:
    room.arrive(a_slice(PatientID=""))
    other = room.row(conflict).id.__class__(int=1)

    with pytest.raises(CannotBeSettled):
        room.decide(other, KEEP, "1.2.3")


def newcomers_file(room: ReadingRoom) -> Path:
    return room.store.path(room.row(duplicate_instance).key)


def test_what_cannot_be_carried_out_is_decided_anew(room: ReadingRoom) -> None:
    first = a_slice()
    room.arrive(first, again(first, InstanceNumber=7))
    room.handle()
    found = room.row(conflict)
    newcomers_file(room).unlink()

    room.decide(found.id, REPLACE, first.StudyInstanceUID)

    assert room.said(ConflictUnsettled) == [
        ConflictUnsettled(
            conflict_id=found.id,
            study_instance_uid=first.StudyInstanceUID,
            decided_before=0,
            reason=UnsettledReason.NEWCOMER_NOT_KEPT,
        )
    ]
    assert room.row(conflict).decision is None
    room.decide(found.id, KEEP, first.StudyInstanceUID, decided_before=1)
    assert room.row(conflict).decision == "keep"
    assert len(room.said(ConflictSettled)) == 1


def test_what_is_damaged_by_now_is_decided_anew(room_in_sqlite: ReadingRoom) -> None:
    room = room_in_sqlite
    first = a_slice()
    room.arrive(first, again(first, InstanceNumber=7))
    room.handle()
    newcomers_file(room).write_bytes(b"\0" * 400)

    room.decide(room.row(conflict).id, REPLACE, first.StudyInstanceUID)

    reasons = [body.reason for body in room.said(ConflictUnsettled)]
    assert reasons == [UnsettledReason.NEWCOMER_NOT_READABLE]


def test_a_decision_whose_every_attempt_failed_is_taken_back_and_never_carried_out(
    room_in_sqlite: ReadingRoom,
) -> None:
    room = room_in_sqlite
    first = a_slice()
    room.arrive(first, of(first, PatientID="P2"))
    found = room.row(conflict)
    decided = ConflictDecided(
        conflict_id=found.id,
        study_instance_uid=first.StudyInstanceUID,
        decision=EXCLUDE,
        decided_by="ada",
    )
    room.send(decided)

    room.give_up()
    room.handle()

    reasons = [body.reason for body in room.said(ConflictUnsettled)]
    assert reasons == [UnsettledReason.NOT_CARRIED_OUT]
    assert room.said(ConflictSettled) == []
    # A person who replays the dead letter does not undo what was decided since.
    room.decide(found.id, KEEP, first.StudyInstanceUID, decided_before=1)
    assert room.row(conflict).decision == "keep"


def test_no_value_of_a_patient_travels(
    room: ReadingRoom, capfd: pytest.CaptureFixture[str]
) -> None:
    first = a_slice(PatientName="Xylograph^Zebedee", PatientID="ZQ77")
    room.arrive(first, of(first, PatientID="ZQ78"), again(first, PatientID="ZQ79"))
    room.handle()
    for row in room.rows(conflict):
        room.decide(row.id, REPLACE, first.StudyInstanceUID)

    told = str(room.said(StudyConflicted, ConflictSettled, StudyReceived)) + str(capfd.readouterr())

    assert "ZQ7" not in told
    assert "Xylograph" not in told
