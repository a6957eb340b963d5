"""What has gone to a PACS and should not have is followed by a rejection note, once."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from imaging_store.schema.workflow import destination_delivery, history
from message_contracts.case import DeliveryState, Release, Stage
from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
    AttachmentRequested,
    RejectionDelivered,
    RejectionFailed,
    RejectionRequested,
)
from message_contracts.destination import PacsDestination
from message_contracts.identifiers import case_id_of
from tests.integration.workflow_engine.signed_case import AT_EVERY_SIGNATURE, UID
from tests.workflow_journey import Ward
from workflow_engine.case import Trigger
from workflow_engine.commands import (
    Decision,
    RejectionReason,
    ReturnReason,
    Verification,
    Words,
    reject,
    send_back,
    verify_as_doctor,
)

CASE = case_id_of(UID)
RESULTS = (f"{UID}.1.901", f"{UID}.1.902")
OVERRIDE = Verification(Decision.OVERRIDE, finding="Normal")


@pytest.fixture
def destinations() -> tuple[PacsDestination, ...]:
    return AT_EVERY_SIGNATURE


def rejected(ward: Ward) -> list[tuple[str, int, tuple[str, ...]]]:
    return [
        (each.body.destination, each.body.case_version, each.body.sop_instance_uids)
        for each in ward.sent()
        if isinstance(each.body, RejectionRequested)
    ]


def delivery(ward: Ward, destination: str) -> tuple[str, str | None]:
    with ward.database.reading() as connection:
        row = connection.execute(
            select(destination_delivery).where(
                destination_delivery.c.destination == destination,
                destination_delivery.c.case_version == 1,
            )
        ).one()
    return row.state, row.reason


def answers_in_history(ward: Ward) -> int:
    """Count what destinations have answered."""
    with ward.database.reading() as connection:
        triggers = connection.execute(select(history.c.trigger)).scalars().all()
    return triggers.count(Trigger.DELIVERY_ANSWERED)


def delivered(ward: Ward, destination: str = Release.AI_ANALYZED) -> None:
    ward.deliver(
        AttachmentDelivered(case_id=CASE, case_version=1, destination=destination, outcomes=())
    )


def withdrawn(ward: Ward, destination: str = Release.AI_ANALYZED) -> None:
    """Have the sender find, before it has sent anything, that the doctor did not agree."""
    ward.deliver(
        AttachmentFailed(
            case_id=CASE,
            case_version=1,
            destination=destination,
            outcomes=(),
            reason="the doctor did not agree with the model",
        )
    )


def agree_after_all(ward: Ward) -> None:
    words = Words(ReturnReason.FINDING_QUESTIONED, "Look again.")
    send_back(ward.desk, ward.request(UID, "pharmacist"), words, Stage.DOCTOR)
    ward.verified(UID)


def answered(ward: Ward, *, uids: tuple[str, ...] = RESULTS, reason: str | None = None) -> None:
    what = {"case_id": CASE, "case_version": 1, "destination": Release.AI_ANALYZED}
    if reason is None:
        ward.deliver(RejectionDelivered(**what, sop_instance_uids=uids))
    else:
        ward.deliver(RejectionFailed(**what, sop_instance_uids=uids, reason=reason))


def read_again(ward: Ward) -> None:
    """Have a later image make a second version, which is read too."""
    ward.receive(UID, 2)
    ward.complete(UID, 2)
    ward.deliver(ward.completed(UID, 2))


@pytest.mark.parametrize("decision", [Decision.OVERRIDE, Decision.UNINTERPRETABLE])
def test_what_the_doctor_does_not_stand_behind_is_rejected_where_it_went(
    analyzed: Ward, decision: Decision
) -> None:
    finding = "Normal" if decision is Decision.OVERRIDE else None

    verify_as_doctor(
        analyzed.desk, analyzed.request(UID, "doctor"), Verification(decision, finding=finding)
    )

    assert rejected(analyzed) == [(Release.AI_ANALYZED, 1, RESULTS)]


def test_what_the_doctor_agrees_with_is_not_rejected(analyzed: Ward) -> None:
    analyzed.verified(UID)

    assert rejected(analyzed) == []


def test_an_override_after_a_return_is_rejected_wherever_it_went_meanwhile(analyzed: Ward) -> None:
    analyzed.verified(UID)
    words = Words(ReturnReason.FINDING_QUESTIONED, "Look again.")
    send_back(analyzed.desk, analyzed.request(UID, "pharmacist"), words, Stage.DOCTOR)

    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    send_back(analyzed.desk, analyzed.request(UID, "pharmacist"), words, Stage.DOCTOR)
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)

    # Once each, however often it is overridden.
    assert rejected(analyzed) == [
        (Release.AI_ANALYZED, 1, RESULTS),
        (Release.DOCTOR_VERIFIED, 1, RESULTS),
    ]


def test_the_results_of_a_rejected_case_are_rejected(analyzed: Ward) -> None:
    words = Words(RejectionReason.WRONG_PATIENT, "Not hers.")

    reject(analyzed.desk, analyzed.request(UID, "doctor"), words)

    assert rejected(analyzed) == [(Release.AI_ANALYZED, 1, RESULTS)]


def test_a_rejected_amendment_rejects_its_own_results_alone(analyzed: Ward) -> None:
    analyzed.signed(UID)
    read_again(analyzed)
    words = Words(RejectionReason.WRONG_PATIENT, "Not hers.")

    reject(analyzed.desk, analyzed.request(UID, "doctor"), words)

    assert [(name, version) for name, version, _ in rejected(analyzed)] == [
        (Release.AI_ANALYZED, 2)
    ]


@pytest.mark.parametrize("is_override", [True, False])
def test_results_of_an_unsigned_version_that_another_followed_are_rejected_too(
    analyzed: Ward, *, is_override: bool
) -> None:
    read_again(analyzed)

    if is_override:
        verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    else:
        words = Words(RejectionReason.WRONG_PATIENT, "Not hers.")
        reject(analyzed.desk, analyzed.request(UID, "doctor"), words)

    assert [(name, version) for name, version, _ in rejected(analyzed)] == [
        (Release.AI_ANALYZED, 1),
        (Release.AI_ANALYZED, 2),
    ]
    assert rejected(analyzed)[0][2] == RESULTS


@pytest.mark.parametrize("is_signed", [True, False])
def test_what_went_before_the_study_was_corrected_is_rejected(
    analyzed: Ward, *, is_signed: bool
) -> None:
    if is_signed:
        analyzed.signed(UID)
    went = [(name, 1) for name, version in analyzed.attached() if version == 1]
    conflict_id = analyzed.contradict(UID)

    analyzed.settle(UID, conflict_id, 2)
    read_again(analyzed)

    assert sorted((name, version) for name, version, _ in rejected(analyzed)) == sorted(went)
    assert len(went) == (3 if is_signed else 1)


def test_a_conflict_that_changes_nothing_of_the_study_rejects_nothing(analyzed: Ward) -> None:
    conflict_id = analyzed.contradict(UID)

    analyzed.settle(UID, conflict_id)

    assert rejected(analyzed) == []


def test_the_delivery_tells_that_a_note_follows_and_that_it_came(analyzed: Ward) -> None:
    delivered(analyzed)
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    follows = delivery(analyzed, Release.AI_ANALYZED)

    answered(analyzed)

    assert follows == (DeliveryState.DELIVERED, "a rejection note follows what was sent")
    assert delivery(analyzed, Release.AI_ANALYZED) == (DeliveryState.REJECTED, None)
    with analyzed.database.reading() as connection:
        told = connection.execute(select(history.c.trigger, history.c.details)).all()
    assert ("rejection_requested", Release.AI_ANALYZED) in {
        (row.trigger, row.details.get("destination")) for row in told
    }
    assert told[-1].details["state"] == DeliveryState.REJECTED


def test_a_late_delivery_leaves_it_rejected(analyzed: Ward) -> None:
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    answered(analyzed)

    delivered(analyzed)

    assert delivery(analyzed, Release.AI_ANALYZED) == (DeliveryState.REJECTED, None)


def test_what_never_arrived_is_withdrawn_and_not_rejected(analyzed: Ward) -> None:
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)

    answered(analyzed, uids=())
    nothing_sent = delivery(analyzed, Release.AI_ANALYZED)
    withdrawn(analyzed)

    assert nothing_sent == (DeliveryState.PENDING, "it was withdrawn before anything was sent")
    assert delivery(analyzed, Release.AI_ANALYZED) == (
        DeliveryState.FAILED,
        "the doctor did not agree with the model",
    )


def test_the_reason_of_a_withdrawal_outlives_the_answer_that_nothing_is_to_be_rejected(
    analyzed: Ward,
) -> None:
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)

    withdrawn(analyzed)
    answered(analyzed, uids=())

    assert delivery(analyzed, Release.AI_ANALYZED) == (
        DeliveryState.FAILED,
        "the doctor did not agree with the model",
    )


@pytest.mark.parametrize("is_heard", [True, False])
def test_what_was_withdrawn_is_asked_for_again_once_the_doctor_agrees(
    analyzed: Ward, *, is_heard: bool
) -> None:
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    if is_heard:
        withdrawn(analyzed)
        answered(analyzed, uids=())

    agree_after_all(analyzed)

    asked = [
        each
        for each in analyzed.sent()
        if isinstance(each.body, AttachmentRequested)
        and each.body.destination == Release.AI_ANALYZED
    ]
    assert len(asked) == 2
    assert asked[0].body == asked[1].body
    assert delivery(analyzed, Release.AI_ANALYZED) == (DeliveryState.PENDING, None)
    delivered(analyzed)
    assert delivery(analyzed, Release.AI_ANALYZED) == (DeliveryState.DELIVERED, None)


def test_what_is_asked_for_again_may_be_withdrawn_again(analyzed: Ward) -> None:
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    agree_after_all(analyzed)
    delivered(analyzed)
    words = Words(ReturnReason.FINDING_QUESTIONED, "Look again.")
    send_back(analyzed.desk, analyzed.request(UID, "pharmacist"), words, Stage.DOCTOR)

    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)

    assert rejected(analyzed).count((Release.AI_ANALYZED, 1, RESULTS)) == 2


def test_nothing_is_asked_for_again_where_a_note_has_arrived(analyzed: Ward) -> None:
    delivered(analyzed)
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    answered(analyzed)

    agree_after_all(analyzed)

    assert analyzed.attached().count((Release.AI_ANALYZED, 1)) == 1
    assert delivery(analyzed, Release.AI_ANALYZED) == (
        DeliveryState.REJECTED,
        "a rejection note had arrived before the doctor agreed",
    )


def test_a_note_that_fails_after_the_doctor_has_agreed_is_no_news(analyzed: Ward) -> None:
    delivered(analyzed)
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    agree_after_all(analyzed)
    delivered(analyzed)

    answered(analyzed, reason="the archive did not take 1 of 1 instances: 0x0122")

    assert delivery(analyzed, Release.AI_ANALYZED) == (DeliveryState.DELIVERED, None)


def test_a_note_that_fails_is_told_and_its_replay_too(analyzed: Ward) -> None:
    delivered(analyzed)
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)

    answered(analyzed, reason="the archive did not take 1 of 1 instances: 0x0122")
    failed = delivery(analyzed, Release.AI_ANALYZED)
    answered(analyzed)

    assert failed[0] == DeliveryState.FAILED
    assert failed[1].startswith("it still shows what is rejected: the archive did not take")
    assert delivery(analyzed, Release.AI_ANALYZED) == (DeliveryState.REJECTED, None)


def test_a_note_that_fails_otherwise_when_it_is_replayed_says_so(analyzed: Ward) -> None:
    delivered(analyzed)
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)

    shown = []
    for reason in ("it is full", "it is away", "it is away", "it is full"):
        answered(analyzed, reason=reason)
        shown.append((delivery(analyzed, Release.AI_ANALYZED)[1], answers_in_history(analyzed)))

    still = "it still shows what is rejected"
    assert shown == [
        (f"{still}: it is full", 2),
        (f"{still}: it is away", 3),
        (f"{still}: it is away", 3),
        (f"{still}: it is full", 4),
    ]


def test_results_that_fail_late_leave_the_reason_why_they_are_still_shown(analyzed: Ward) -> None:
    delivered(analyzed, Release.AI_ANALYZED)
    verify_as_doctor(analyzed.desk, analyzed.request(UID, "doctor"), OVERRIDE)
    answered(analyzed, reason="it is away")

    withdrawn(analyzed)

    assert delivery(analyzed, Release.AI_ANALYZED) == (
        DeliveryState.FAILED,
        "it still shows what is rejected: it is away",
    )
