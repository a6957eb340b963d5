"""Why a case is on hold, and when it goes on."""

from __future__ import annotations

import time
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from imaging_store.schema.ingest import conflict
from imaging_store.schema.workflow import history, hold, intervention
from message_contracts.case import CaseStatus, Release
from message_contracts.delivery import AttachmentRequested
from message_contracts.destination import PacsDestination
from message_contracts.identifiers import case_id_of
from message_contracts.ingest import ConflictReason, StudyConflicted
from message_contracts.intake import (
    ConflictDecided,
    ConflictDecision,
    ConflictUnsettled,
    UnsettledReason,
)
from service_runtime.messaging.tables import delivery
from tests.workflow_journey import Ward
from workflow_engine.audit import verify
from workflow_engine.commands import (
    COMMAND_LINE,
    AlreadyDecided,
    Case,
    DecisionReason,
    HoldReleaseReason,
    IllegalTransition,
    OnHold,
    Request,
    Signer,
    UndecidedConflict,
    UnknownConflict,
    Words,
    WrongRole,
    decide_conflict,
    release_hold,
)

UID = "1.2.826.0.1.1"
DECIDE = Words(DecisionReason.IDENTITY_CONFIRMED, "Asked the ward.")
RELEASE = Words(HoldReleaseReason.OTHER, "Looked.")
DESTINATIONS = (
    PacsDestination(
        name="PACS", ae_title="PACS", host="127.0.0.1", port=104, release=Release.AI_ANALYZED
    ),
)
KEEP, REPLACE, EXCLUDE = ConflictDecision


@pytest.fixture
def destinations() -> tuple[PacsDestination, ...]:
    return DESTINATIONS


@pytest.fixture
def held(ward: Ward) -> Ward:
    """Have a case whose first version is complete, and that has a conflict, read by a model."""
    ward.receive(UID)
    ward.complete(UID)
    ward.conflict_id = ward.contradict(UID)
    ward.deliver(ward.completed(UID))
    return ward


def decide(ward: Ward, conflict_id: UUID, decision: ConflictDecision = KEEP) -> Case:
    return decide_conflict(ward.desk, ward.request(UID, "admin"), conflict_id, decision, DECIDE)


def doubted(sop_instance_uid: str) -> StudyConflicted:
    return StudyConflicted(
        study_instance_uid=UID,
        sop_instance_uid=sop_instance_uid,
        reason=ConflictReason.PROCEDURE_DISCONTINUED,
    )


def test_a_decided_conflict_holds_until_it_has_been_carried_out(held: Ward) -> None:
    decided = decide(held, held.conflict_id)

    assert decided.on_hold
    assert held.attached() == []
    with pytest.raises(OnHold):
        held.verified(UID)

    held.settle(UID, held.conflict_id)

    assert not held.case(UID).on_hold
    assert held.attached() == [("PACS", 1)]


def test_a_decision_is_sent_and_told_with_who_and_why(held: Ward) -> None:
    decide(held, held.conflict_id, EXCLUDE)

    [sent] = [each.body for each in held.sent() if isinstance(each.body, ConflictDecided)]
    assert (sent.conflict_id, sent.decision) == (held.conflict_id, EXCLUDE)
    with held.database.reading() as connection:
        told = connection.execute(
            select(history).where(history.c.trigger == "conflict_decided")
        ).one()
        words = connection.execute(select(intervention)).one()
        assert verify(connection).faults == ()
    assert told.actor == sent.decided_by == str(held.request(UID, "admin").signer.user_id)
    assert told.details["conflict_id"] == str(held.conflict_id)
    assert told.details["decision"] == "exclude"
    assert (words.act, words.reason_code, words.notes) == (
        "decision",
        "identity_confirmed",
        "Asked the ward.",
    )


def test_late_word_of_a_decision_taken_back_does_not_undo_the_next_one(held: Ward) -> None:
    decide(held, held.conflict_id, REPLACE)
    # As the listener leaves it.
    with held.database.transaction() as transaction:
        transaction.connection.execute(update(conflict).values(unsettled=1))
    decide(held, held.conflict_id, KEEP)

    held.deliver(
        ConflictUnsettled(
            conflict_id=held.conflict_id,
            study_instance_uid=UID,
            decided_before=0,
            reason=UnsettledReason.NEWCOMER_NOT_KEPT,
        )
    )

    with held.database.reading() as connection:
        assert connection.execute(select(hold.c.decided_at)).scalar_one() is not None
    decided = [each.body for each in held.sent() if isinstance(each.body, ConflictDecided)]
    assert [each.decided_before for each in decided] == [0, 1]
    with pytest.raises(AlreadyDecided):
        decide(held, held.conflict_id)


def test_who_decides_at_the_command_line_is_named_in_the_history(held: Ward) -> None:
    signer = Signer(uuid4(), "ada (command line)", "admin", COMMAND_LINE)

    decide_conflict(
        held.desk, Request(case_id_of(UID), signer, held.tick()), held.conflict_id, KEEP, DECIDE
    )

    with held.database.reading() as connection:
        actors = connection.execute(select(history.c.actor)).scalars().all()
    assert actors[-1] == "ada (command line)"


@pytest.mark.parametrize("first", ["settled", "updated"])
def test_a_corrected_study_is_held_until_its_new_version_is_taken_up(
    held: Ward, first: str
) -> None:
    decide(held, held.conflict_id, REPLACE)
    happenings = {
        "settled": lambda: held.settle(UID, held.conflict_id, 2),
        "updated": lambda: held.complete(UID, 2),
    }

    happenings.pop(first)()
    if first == "settled":
        # What was made of the version before the correction must not leave.
        assert held.case(UID).on_hold
    for happening in happenings.values():
        happening()

    case = held.case(UID)
    assert (case.on_hold, case.version, case.status) == (False, 2, CaseStatus.PENDING_AI)
    assert held.attached() == []
    with held.database.reading() as connection:
        assert verify(connection).faults == ()


def test_a_hold_that_needs_no_decision_is_released_beside_one_that_was_decided(
    held: Ward,
) -> None:
    held.deliver(doubted("1.2.9"))
    with pytest.raises(UndecidedConflict):
        release_hold(held.desk, held.request(UID, "admin"), RELEASE)
    decide(held, held.conflict_id)

    released = release_hold(held.desk, held.request(UID, "admin"), RELEASE)

    assert released.on_hold
    with pytest.raises(IllegalTransition, match="goes on by itself"):
        release_hold(held.desk, held.request(UID, "admin"), RELEASE)
    held.settle(UID, held.conflict_id)
    assert not held.case(UID).on_hold


def test_a_case_is_on_hold_until_the_last_reason_has_gone(held: Ward) -> None:
    second = held.contradict(UID)
    held.deliver(doubted("1.2.9"))
    assert held.case(UID).hold_reason == "identity_conflict"

    for conflict_id in (held.conflict_id, second):
        decide(held, conflict_id)
        held.settle(UID, conflict_id)

    assert held.case(UID).hold_reason == "procedure_discontinued"
    release_hold(held.desk, held.request(UID, "admin"), RELEASE)
    assert not held.case(UID).on_hold
    assert held.attached() == [("PACS", 1)]


def test_a_conflict_that_is_heard_of_after_it_was_settled_holds_nothing(ward: Ward) -> None:
    ward.analyzed(UID)
    conflict_id = ward.contradict(UID, sop_instance_uid="1.2.9", heard=False)
    decide(ward, conflict_id)
    ward.settle(UID, conflict_id)

    ward.deliver(ward.conflicted(UID, conflict_id, "1.2.9"))

    assert not ward.case(UID).on_hold


def test_an_update_that_holds_nothing_is_decided_too(ward: Ward) -> None:
    ward.analyzed(UID)
    conflict_id = ward.contradict(UID, holds=False)
    assert not ward.case(UID).on_hold

    decide(ward, conflict_id)
    ward.settle(UID, conflict_id)

    with pytest.raises(AlreadyDecided):
        decide(ward, conflict_id)
    with ward.database.reading() as connection:
        assert connection.execute(select(hold)).all() == []


def test_a_conflict_is_decided_once_by_an_admin_and_is_of_the_case(held: Ward) -> None:
    with pytest.raises(WrongRole):
        decide_conflict(held.desk, held.request(UID, "doctor"), held.conflict_id, KEEP, DECIDE)
    with pytest.raises(UnknownConflict):
        decide(held, uuid4())
    held.receive("1.2.3")
    held.opened("1.2.3")
    with pytest.raises(UnknownConflict):
        decide(held, held.contradict("1.2.3"))
    decide(held, held.conflict_id)

    with pytest.raises(AlreadyDecided):
        decide(held, held.conflict_id)


def test_the_same_reason_told_again_holds_once(ward: Ward) -> None:
    ward.analyzed(UID)
    ward.deliver(doubted("1.2.9"))
    release_hold(ward.desk, ward.request(UID, "admin"), RELEASE)

    ward.deliver(doubted("1.2.9"))

    assert not ward.case(UID).on_hold


def test_what_waited_for_a_person_goes_on_at_once(ward: Ward) -> None:
    ward.analyzed(UID)
    conflict_id = ward.contradict(UID)
    # The request had left before the hold, and its handler has postponed it.
    with ward.database.transaction() as transaction:
        transaction.connection.execute(update(delivery).values(due_at=time.time() + 600))

    decide(ward, conflict_id)
    ward.settle(UID, conflict_id)

    [asked] = [each for each in ward.sent() if isinstance(each.body, AttachmentRequested)]
    with ward.database.reading() as connection:
        due_at = connection.execute(
            select(delivery.c.due_at).where(delivery.c.message_id == str(asked.id))
        ).scalar_one()
    assert due_at < time.time() + 60
