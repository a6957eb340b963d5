"""What people do to a case on hold: decide its conflicts, and let it go on."""

from dataclasses import replace
from uuid import UUID

from sqlalchemy import Connection

from message_contracts.case import Stage
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.intake import ConflictDecided, ConflictDecision
from service_runtime.messaging import outbox
from workflow_engine import dispatch, holds
from workflow_engine.case import Case, Trigger
from workflow_engine.desk import Desk, Intervening, Request, Words, case_of, intervene, require_role
from workflow_engine.dispatch import Occasion
from workflow_engine.refusals import (
    AlreadyDecided,
    IllegalTransition,
    UndecidedConflict,
    UnknownConflict,
)
from workflow_engine.signing import Act


def release_hold(desk: Desk, request: Request, words: Words) -> Case:
    """Let a case go on that was on hold; results that waited for it leave now.

    Raises
    ------
    Refusal
        `WrongRole` unless an admin asks, `UnknownCase`, `StaleCase`, `UndecidedConflict` while a
        conflict of the case is to be decided first, or `IllegalTransition` where there is nothing
        to release.
    """
    with desk.database.transaction() as transaction:
        connection = transaction.connection
        require_role(request.signer, Stage.ADMIN)
        case, request = case_of(connection, request)
        open_holds = holds.open_holds(connection, case)
        if any(each.needs_decision and not each.is_decided for each in open_holds):
            raise UndecidedConflict("a conflict of the study has to be decided first")
        if not any(not each.needs_decision for each in open_holds):
            raise IllegalTransition(
                "what was decided is being carried out: the case goes on by itself"
                if open_holds
                else "the case is not on hold"
            )
        holds.release(connection, case, request.at)
        after = holds.as_held(connection, case, request.at)
        doing = Intervening(
            request,
            words,
            Act.HOLD_RELEASE,
            Trigger.HOLD_RELEASED,
            details={"on_hold": after.on_hold},
        )
        intervene(transaction, doing, case, after)
        dispatch.release_results(transaction, after, desk.destinations, Occasion(request.at))
        return after


def decide_conflict(
    desk: Desk, request: Request, conflict_id: UUID, decision: ConflictDecision, words: Words
) -> Case:
    """Say which is right; ``dicom_listener`` carries it out, and the hold ends when that is done.

    Raises
    ------
    Refusal
        `WrongRole` unless an admin asks, `UnknownCase`, `StaleCase`, `UnknownConflict`, or
        `AlreadyDecided`.
    """
    with desk.database.transaction() as transaction:
        connection = transaction.connection
        require_role(request.signer, Stage.ADMIN)
        case, request = case_of(connection, request)
        decided_before = _require_undecided(connection, case, conflict_id)
        holds.decided(connection, conflict_id, request.at)
        after = replace(case, revision=case.revision + 1, changed_at=request.at)
        doing = Intervening(
            request,
            words,
            Act.DECISION,
            Trigger.CONFLICT_DECIDED,
            details={"conflict_id": str(conflict_id), "decision": str(decision)},
            id=holds.decision_id(conflict_id, decided_before),
        )
        intervene(transaction, doing, case, after)
        body = ConflictDecided(
            conflict_id=conflict_id,
            study_instance_uid=case.study_instance_uid,
            decision=decision,
            decided_by=request.signer.actor,
            decided_before=decided_before,
        )
        outbox.send(
            transaction,
            Envelope.of(
                body,
                source=dispatch.SOURCE,
                time=request.at,
                id=derived_id(ConflictDecided.TYPE, conflict_id, decided_before),
            ),
        )
        return after


def _require_undecided(connection: Connection, case: Case, conflict_id: UUID) -> int:
    """Return how many decisions of the conflict were taken back."""
    known = holds.conflict_of(connection, conflict_id)
    if known is None or known.study_instance_uid != case.study_instance_uid:
        raise UnknownConflict("the case has no conflict of this id")
    if holds.is_decided(connection, known):
        raise AlreadyDecided("somebody has decided this conflict before")
    return int(known.unsettled)
