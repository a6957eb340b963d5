from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from imaging_store.schema.workflow import destination_delivery, intervention, signature
from message_contracts.case import CaseStatus, Stage
from message_contracts.delivery import ReportRequested
from message_contracts.destination import PacsDestination
from message_contracts.identifiers import case_id_of
from tests.integration.workflow_engine.signed_case import (
    AT_EVERY_SIGNATURE,
    REJECT,
    UID,
    in_force,
    rows,
)
from tests.workflow_journey import Ward
from workflow_engine.commands import (
    Request,
    Verification,
    Words,
    approve,
    reject,
    release_hold,
    review_as_pharmacist,
    send_back,
    verify_as_doctor,
)
from workflow_engine.reasons import HoldReleaseReason, ReturnReason
from workflow_engine.refusals import (
    IllegalTransition,
    NothingToAgreeWith,
    OnHold,
    Refusal,
    SameSigner,
    StaleCase,
    UnknownCase,
    WrongRole,
)
from workflow_engine.signing import Decision

AGREE = Verification(Decision.AGREE)
RETURN = Words(ReturnReason.FINDING_QUESTIONED, "Look again.")
RELEASE = Words(HoldReleaseReason.IDENTITY_CONFIRMED, "Asked the ward.")


@pytest.fixture
def destinations() -> tuple[PacsDestination, ...]:
    return AT_EVERY_SIGNATURE


def test_three_people_make_a_report(analyzed: Ward) -> None:
    states = [
        verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), AGREE),
        review_as_pharmacist(analyzed.desk, analyzed.request(UID, "pharmacist"), "None."),
        approve(analyzed.desk, analyzed.request(UID, "admin")),
    ]

    assert [(state.status, state.stage) for state in states] == [
        (CaseStatus.DOCTOR_VERIFIED, Stage.PHARMACIST),
        (CaseStatus.PHARMACIST_COMPLETED, Stage.ADMIN),
        (CaseStatus.REPORT_READY, None),
    ]
    assert analyzed.case(UID) == states[-1]
    assert states[-1].report_version == 1


def test_signatures_follow_each_other_whichever_clock_is_behind(analyzed: Ward) -> None:
    analyzed.step = timedelta(seconds=-5)

    analyzed.verified(UID)
    send_back(analyzed.desk, analyzed.request(UID, "pharmacist"), RETURN)
    analyzed.signed(UID)

    signed = sorted(rows(analyzed, signature), key=lambda row: row.signed_at)
    assert [row.stage for row in signed] == ["doctor", "doctor", "pharmacist", "admin"]
    assert len({row.signed_at for row in signed}) == 4
    assert signed[0].voided_at < signed[1].signed_at


def test_an_approval_asks_for_the_report_once(analyzed: Ward) -> None:
    analyzed.signed(UID)

    reports = [each for each in analyzed.sent() if isinstance(each.body, ReportRequested)]
    deliveries = {
        (row.destination, row.kind, row.state) for row in rows(analyzed, destination_delivery)
    }
    assert len(reports) == 1
    assert deliveries == {
        ("EHR", "EHR", "PENDING"),
        ("AI_ANALYZED", "PACS", "PENDING"),
        ("DOCTOR_VERIFIED", "PACS", "PENDING"),
        ("REPORT_READY", "PACS", "PENDING"),
    }


def test_results_leave_at_each_destinations_own_signature(ward: Ward) -> None:
    ward.analyzed(UID)
    at_analyzed = ward.attached()
    ward.verified(UID)
    at_verified = ward.attached()
    review_as_pharmacist(ward.desk, ward.request(UID, "pharmacist"), "None.")
    at_reviewed = ward.attached()
    approve(ward.desk, ward.request(UID, "admin"))

    assert at_analyzed == [("AI_ANALYZED", 1)]
    assert at_verified == [*at_analyzed, ("DOCTOR_VERIFIED", 1)]
    assert at_reviewed == at_verified
    assert ward.attached() == [*at_verified, ("REPORT_READY", 1)]


@pytest.mark.parametrize("decision", [Decision.OVERRIDE, Decision.UNINTERPRETABLE])
def test_results_that_the_doctor_does_not_stand_behind_do_not_leave(
    analyzed: Ward, decision: Decision
) -> None:
    analyzed.signed(UID, decision)

    assert analyzed.attached() == [("AI_ANALYZED", 1)]


def test_what_a_doctor_agrees_with_is_kept_with_their_signature(analyzed: Ward) -> None:
    analyzed.verified(UID)

    (signed,) = rows(analyzed, signature)
    assert (signed.finding, signed.decision, signed.printed_name) == (
        "Bacterial pneumonia",
        "agree",
        "doctor",
    )


def test_nobody_agrees_with_an_uncertain_model(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)
    ward.deliver(ward.completed(UID, probability=0.55))

    with pytest.raises(NothingToAgreeWith):
        ward.verified(UID)
    overridden = ward.verified(UID, Decision.OVERRIDE)

    assert overridden.status is CaseStatus.DOCTOR_VERIFIED


def test_nobody_agrees_with_a_model_that_failed(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)
    ward.deliver(ward.failed(UID))

    with pytest.raises(NothingToAgreeWith):
        ward.verified(UID)


def test_a_doctor_opens_a_case_without_a_model_by_hand(ward: Ward) -> None:
    ward.receive(UID, modality="MR")
    ward.complete(UID)

    ready = ward.signed(UID, Decision.OVERRIDE)

    assert ready.status is CaseStatus.REPORT_READY
    assert ward.attached() == []


def test_one_person_cannot_sign_two_stages(analyzed: Ward) -> None:
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor", "Both"), AGREE)

    with pytest.raises(SameSigner, match="doctor"):
        review_as_pharmacist(analyzed.desk, analyzed.request(UID, "pharmacist", "Both"), "None.")

    assert analyzed.case(UID).status is CaseStatus.DOCTOR_VERIFIED


def test_the_wrong_role_is_refused(analyzed: Ward) -> None:
    before = analyzed.case(UID)

    with pytest.raises(WrongRole):
        verify_as_doctor(analyzed.desk, analyzed.request(UID, "admin"), AGREE)
    with pytest.raises(WrongRole):
        reject(analyzed.desk, analyzed.request(UID, "pharmacist"), REJECT)
    with pytest.raises(WrongRole):
        release_hold(analyzed.desk, analyzed.request(UID, "doctor"), RELEASE)

    assert analyzed.case(UID) == before
    assert rows(analyzed, signature) == rows(analyzed, intervention) == []


def test_the_wrong_state_is_refused(analyzed: Ward) -> None:
    with pytest.raises(IllegalTransition, match="waiting for the doctor"):
        approve(analyzed.desk, analyzed.request(UID, "admin"))
    analyzed.verified(UID)
    with pytest.raises(IllegalTransition):
        analyzed.verified(UID)


def test_there_must_be_a_case(ward: Ward) -> None:
    with pytest.raises(UnknownCase):
        ward.verified(UID)


def test_nobody_signs_what_they_have_not_seen(analyzed: Ward) -> None:
    seen = analyzed.case(UID).revision
    analyzed.receive(UID, 2)
    analyzed.complete(UID, 2)
    analyzed.deliver(analyzed.completed(UID, 2))

    with pytest.raises(StaleCase):
        verify_as_doctor(
            analyzed.desk, replace(analyzed.request(UID, "doctor"), revision=seen), AGREE
        )


def test_of_two_doctors_who_sign_at_once_one_is_told(analyzed: Ward) -> None:
    requests = [analyzed.request(UID, "doctor", name) for name in ("Ada", "Bea", "Cleo", "Dora")]

    def sign(request: Request) -> bool:
        try:
            verify_as_doctor(analyzed.desk, request, AGREE)
        except Refusal:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        signed = list(pool.map(sign, requests))

    assert signed.count(True) == 1
    assert len(rows(analyzed, signature)) == 1


def test_a_pharmacist_sends_a_case_back_to_the_doctor(analyzed: Ward) -> None:
    analyzed.verified(UID)

    returned = send_back(analyzed.desk, analyzed.request(UID, "pharmacist"), RETURN)

    assert (returned.status, returned.stage) == (CaseStatus.RETURNED, Stage.DOCTOR)
    assert returned.reason_code == "finding_questioned"
    assert in_force(analyzed) == set()
    assert analyzed.signed(UID).status is CaseStatus.REPORT_READY


@pytest.mark.parametrize(
    ("to", "stage", "kept"),
    [
        (None, Stage.PHARMACIST, {"doctor"}),
        (Stage.PHARMACIST, Stage.PHARMACIST, {"doctor"}),
        (Stage.DOCTOR, Stage.DOCTOR, set()),
    ],
)
def test_an_admin_says_to_whom_a_case_goes_back(analyzed: Ward, to, stage, kept) -> None:
    analyzed.verified(UID)
    review_as_pharmacist(analyzed.desk, analyzed.request(UID, "pharmacist"), "None.")

    returned = send_back(analyzed.desk, analyzed.request(UID, "admin"), RETURN, to)

    assert (returned.status, returned.stage) == (CaseStatus.RETURNED, stage)
    assert in_force(analyzed) == kept
    assert len(rows(analyzed, signature)) == 2


def test_nobody_sends_a_case_forward(analyzed: Ward) -> None:
    with pytest.raises(IllegalTransition, match="before the doctor"):
        send_back(analyzed.desk, analyzed.request(UID, "doctor"), RETURN)
    analyzed.verified(UID)
    with pytest.raises(IllegalTransition, match="earlier stage"):
        send_back(analyzed.desk, analyzed.request(UID, "pharmacist"), RETURN, Stage.ADMIN)


def test_a_rejected_case_ends_and_keeps_the_words(analyzed: Ward) -> None:
    analyzed.verified(UID)

    ended = reject(analyzed.desk, analyzed.request(UID, "pharmacist"), REJECT)

    (kept,) = rows(analyzed, intervention)
    assert (ended.status, ended.stage, ended.reason_code) == (
        CaseStatus.REJECTED,
        None,
        "wrong_patient",
    )
    assert (kept.act, kept.notes, kept.printed_name) == ("rejection", "Not hers.", "pharmacist")
    assert ("REPORT_READY", 1) not in analyzed.attached()


def test_a_late_image_reopens_a_rejected_case(analyzed: Ward) -> None:
    reject(analyzed.desk, analyzed.request(UID, "doctor"), REJECT)
    analyzed.receive(UID, 2)

    analyzed.complete(UID, 2)

    case = analyzed.case(UID)
    assert (case.status, case.version, case.reason_code) == (CaseStatus.PENDING_AI, 2, None)


def test_a_late_image_voids_what_was_signed_so_far(analyzed: Ward) -> None:
    analyzed.verified(UID)
    analyzed.receive(UID, 2)

    analyzed.complete(UID, 2)

    assert in_force(analyzed) == set()
    assert analyzed.case(UID).status is CaseStatus.PENDING_AI


def test_nothing_is_signed_on_hold_and_nothing_leaves(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)
    ward.conflict(UID)
    ward.deliver(ward.completed(UID))

    with pytest.raises(OnHold, match="identity_conflict"):
        ward.verified(UID)
    assert ward.attached() == []

    released = release_hold(ward.desk, ward.request(UID, "admin"), RELEASE)

    assert (released.status, released.on_hold) == (CaseStatus.AI_ANALYZED, False)
    assert ward.attached() == [("AI_ANALYZED", 1)]


def test_a_case_that_is_not_on_hold_is_not_released(analyzed: Ward) -> None:
    with pytest.raises(IllegalTransition, match="not on hold"):
        release_hold(analyzed.desk, analyzed.request(UID, "admin"), RELEASE)


def test_a_case_that_waits_for_nobody_is_not_rejected(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)

    with pytest.raises(IllegalTransition, match="waits for nobody"):
        reject(ward.desk, ward.request(UID, "doctor"), REJECT)
    assert ward.case(UID).id == case_id_of(UID)
