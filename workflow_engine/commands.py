"""What people do to a case: sign it, send it back, end it, let it go on.

Each command is one transaction, and its answer, the new state or a refusal, is final. Whoever calls
has made sure that the person is who they say they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from message_contracts.case import CaseStatus, Stage
from message_contracts.identifiers import derived_id
from service_runtime.database import Transaction
from workflow_engine import cases, dispatch, rejections
from workflow_engine.case import Case, Trigger, advance, rejection
from workflow_engine.completion_commands import force_completion
from workflow_engine.desk import (
    Desk,
    Intervening,
    Request,
    Words,
    case_of,
    intervene,
    require_role,
)
from workflow_engine.dispatch import Occasion
from workflow_engine.findings import Reading, agreed_label, findings_digest
from workflow_engine.history import Entry
from workflow_engine.hold_commands import decide_conflict, release_hold
from workflow_engine.holds import decision_id
from workflow_engine.model_monitoring import ModelReport
from workflow_engine.model_monitoring import report as report_on_model
from workflow_engine.reasons import (
    MEANINGS,
    CompletionRequestReason,
    DecisionReason,
    HoldReleaseReason,
    RejectionReason,
    ReturnReason,
    UrgencyReason,
)
from workflow_engine.refusals import (
    AlreadyDecided,
    IllegalTransition,
    NothingToAgreeWith,
    OnHold,
    Refusal,
    SameSigner,
    StaleCase,
    UndecidedConflict,
    UnknownCase,
    UnknownConflict,
    WrongRole,
)
from workflow_engine.routable import explain_study
from workflow_engine.routing import Explanation
from workflow_engine.signing import (
    COMMAND_LINE,
    Act,
    Decision,
    Signature,
    Signer,
    signature_digest,
)
from workflow_engine.urgency_commands import expedite
from workflow_engine.watched_time import NoSuchTime, watched_time

__all__ = [
    "COMMAND_LINE",
    "AlreadyDecided",
    "Case",
    "CompletionRequestReason",
    "Decision",
    "DecisionReason",
    "Desk",
    "Explanation",
    "HoldReleaseReason",
    "IllegalTransition",
    "ModelReport",
    "NoSuchTime",
    "NothingToAgreeWith",
    "OnHold",
    "Refusal",
    "RejectionReason",
    "Request",
    "ReturnReason",
    "SameSigner",
    "Signer",
    "StaleCase",
    "UndecidedConflict",
    "UnknownCase",
    "UnknownConflict",
    "UrgencyReason",
    "Verification",
    "Words",
    "WrongRole",
    "approve",
    "decide_conflict",
    "decision_id",
    "expedite",
    "explain_study",
    "force_completion",
    "meaning",
    "reject",
    "release_hold",
    "report_on_model",
    "review_as_pharmacist",
    "send_back",
    "verify_as_doctor",
    "watched_time",
]
"""All that the API needs of this package: it may import no other module of it."""

_TRIGGERS = {
    Stage.DOCTOR: Trigger.DOCTOR_SIGNED,
    Stage.PHARMACIST: Trigger.PHARMACIST_SIGNED,
    Stage.ADMIN: Trigger.APPROVED,
}
_ORDER = tuple(Stage)


@dataclass(frozen=True)
class Verification:
    """What a doctor says of the study."""

    decision: Decision
    finding: str | None = None
    """The doctor's own; only where they override."""
    notes: str = ""


def verify_as_doctor(desk: Desk, request: Request, verification: Verification) -> Case:
    """Sign the finding, the doctor's own where they override.

    Raises
    ------
    Refusal
        `WrongRole`, `UnknownCase`, `StaleCase`, `IllegalTransition`, `OnHold`, `SameSigner`, or
        `NothingToAgreeWith`; nothing has changed.
    """

    def finding_of(read: tuple[Reading, ...]) -> str | None:
        if verification.decision is not Decision.AGREE:
            return verification.finding
        label = agreed_label(read)
        if label is None:
            raise NothingToAgreeWith(
                "no model has a finding that one could agree with: override it with a finding, "
                "or call the study uninterpretable"
            )
        return label

    return _sign(
        desk, request, Stage.DOCTOR, _Draft(verification.decision, verification.notes, finding_of)
    )


def review_as_pharmacist(desk: Desk, request: Request, notes: str) -> Case:
    """Sign the medication notes; refused as `verify_as_doctor` is."""
    return _sign(desk, request, Stage.PHARMACIST, _Draft(None, notes))


def approve(desk: Desk, request: Request) -> Case:
    """Sign the report; it is final, and its delivery is asked for in the same transaction."""
    return _sign(desk, request, Stage.ADMIN, _Draft(None, ""))


def send_back(desk: Desk, request: Request, words: Words, to: Stage | None = None) -> Case:
    """Return a case to an earlier stage: by default the one before the signer's.

    Raises
    ------
    Refusal
        As `verify_as_doctor`; `IllegalTransition` also where ``to`` is not an earlier stage.
    """
    with desk.database.transaction() as transaction:
        case, request = _case_at_stage_of(transaction, request)
        target = _earlier_stage(request.signer, to)
        trigger = (
            Trigger.RETURNED_TO_DOCTOR if target is Stage.DOCTOR else Trigger.RETURNED_TO_PHARMACIST
        )
        after = replace(advance(case, trigger, request.at), reason_code=words.reason)
        voided = [
            each
            for each in cases.unfinished_signatures(transaction.connection, case)
            if _ORDER.index(each.stage) >= _ORDER.index(target)
        ]
        intervene(
            transaction, Intervening(request, words, Act.RETURN, trigger, voided), case, after
        )
        return after


def reject(desk: Desk, request: Request, words: Words) -> Case:
    """End a case without a report; of an amendment, keep the signed report in force.

    Refused as `verify_as_doctor` is, though not because the case is on hold.
    """
    with desk.database.transaction() as transaction:
        case, request = _case_at_stage_of(transaction, request)
        trigger = rejection(case)
        after = replace(advance(case, trigger, request.at), reason_code=words.reason)
        voided = list(cases.unfinished_signatures(transaction.connection, case))
        intervene(
            transaction, Intervening(request, words, Act.REJECTION, trigger, voided), case, after
        )
        unsigned = rejections.unsigned_versions(after)
        rejections.reject_results(transaction, after, unsigned, Occasion(request.at))
        return after


def meaning(reason: StrEnum) -> str:
    """Return what a coded reason means, as pages show it."""
    return MEANINGS[reason]


def _no_finding(_read: tuple[Reading, ...]) -> str | None:
    return None


@dataclass(frozen=True)
class _Draft:
    """What is to be signed, apart from what the case itself says."""

    decision: Decision | None
    notes: str
    finding_of: Callable[[tuple[Reading, ...]], str | None] = _no_finding


def _sign(desk: Desk, request: Request, stage: Stage, draft: _Draft) -> Case:
    with desk.database.transaction() as transaction:
        require_role(request.signer, stage)
        connection = transaction.connection
        case, request = case_of(connection, request)
        after = advance(case, _TRIGGERS[stage], request.at)
        signed_before = cases.signatures(connection, case.id, case.version)
        _require_another_signer(request.signer, stage, signed_before)
        read = cases.readings(connection, case.id, case.version)
        earlier = [each.content_sha256 for each in signed_before if each.voided_at is None]
        findings_sha256 = findings_digest(read)
        signature = Signature(
            id=derived_id("signature", case.id, case.version, stage, case.revision),
            case_id=case.id,
            case_version=case.version,
            stage=stage,
            signer=request.signer,
            decision=draft.decision,
            finding=draft.finding_of(read),
            notes=draft.notes,
            signed_at=request.at,
        )
        signature = replace(
            signature, content_sha256=signature_digest(signature, findings_sha256, earlier)
        )
        cases.keep_signature(connection, signature)
        details = {
            "signature_id": str(signature.id),
            "content_sha256": signature.content_sha256,
            "findings_sha256": findings_sha256,
            "earlier_sha256": earlier,
        }
        entry = Entry(_TRIGGERS[stage], request.at, actor=request.signer.actor, details=details)
        cases.change(connection, case, after, entry)
        occasion = Occasion(request.at)
        dispatch.release_results(transaction, after, desk.destinations, occasion)
        if draft.decision in {Decision.OVERRIDE, Decision.UNINTERPRETABLE}:
            unsigned = rejections.unsigned_versions(after)
            rejections.reject_results(transaction, after, unsigned, occasion)
        if draft.decision is Decision.AGREE:
            rejections.tell_what_stays_rejected(transaction, after, occasion)
        if after.status is CaseStatus.REPORT_READY:
            dispatch.request_report(transaction, after, occasion)
        return after


def _case_at_stage_of(transaction: Transaction, request: Request) -> tuple[Case, Request]:
    """Return what `case_of` does, once it is sure that the case waits for the signer's role."""
    case, request = case_of(transaction.connection, request)
    # A case without a model waits for nobody; a doctor may open it by hand.
    stage = Stage.DOCTOR if case.status is CaseStatus.NO_MODEL else case.stage
    if stage is None:
        raise IllegalTransition(f"the case is {case.status} and waits for nobody")
    require_role(request.signer, stage)
    return case, request


def _earlier_stage(signer: Signer, to: Stage | None) -> Stage:
    own = _ORDER.index(Stage(signer.role))
    if own == 0:
        raise IllegalTransition("there is no stage before the doctor's")
    target = to or _ORDER[own - 1]
    if _ORDER.index(target) >= own:
        raise IllegalTransition("stage: a case is returned to an earlier stage than one's own")
    return target


def _require_another_signer(
    signer: Signer, stage: Stage, signed_before: Sequence[Signature]
) -> None:
    # Voided signatures count: two eyes do not become four because a case went back.
    for each in signed_before:
        if each.signer.user_id == signer.user_id and each.stage is not stage:
            raise SameSigner(f"you have signed this version as its {each.stage} already")
