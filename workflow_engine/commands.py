"""What people do to a case: sign it, send it back, end it, let it go on.

Each command is one transaction, and its answer, the new state or a refusal, is final. Whoever calls
has made sure that the person is who they say they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection

from message_contracts.case import CaseStatus, Stage
from message_contracts.destination import PacsDestination
from message_contracts.identifiers import derived_id
from service_runtime.database import Database, Transaction
from workflow_engine import case as moves
from workflow_engine import cases, dispatch
from workflow_engine.case import Case, Trigger, advance, rejection
from workflow_engine.dispatch import Occasion
from workflow_engine.findings import Reading, agreed_label, findings_digest
from workflow_engine.history import Entry
from workflow_engine.reasons import (
    MEANINGS,
    HoldReleaseReason,
    RejectionReason,
    ReturnReason,
)
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
from workflow_engine.signing import (
    Act,
    Decision,
    Intervention,
    Signature,
    Signer,
    signature_digest,
)

__all__ = [
    "Case",
    "Decision",
    "Desk",
    "HoldReleaseReason",
    "IllegalTransition",
    "NothingToAgreeWith",
    "OnHold",
    "Refusal",
    "RejectionReason",
    "Request",
    "ReturnReason",
    "SameSigner",
    "Signer",
    "StaleCase",
    "UnknownCase",
    "Verification",
    "Words",
    "WrongRole",
    "approve",
    "meaning",
    "reject",
    "release_hold",
    "review_as_pharmacist",
    "send_back",
    "verify_as_doctor",
]
"""All that the API needs of this package: it may import no other module of it."""

_TRIGGERS = {
    Stage.DOCTOR: Trigger.DOCTOR_SIGNED,
    Stage.PHARMACIST: Trigger.PHARMACIST_SIGNED,
    Stage.ADMIN: Trigger.APPROVED,
}
_ORDER = tuple(Stage)


@dataclass(frozen=True)
class Desk:
    """Where people act: the database, and the destinations that an act may release results to."""

    database: Database
    destinations: Sequence[PacsDestination] = ()


@dataclass(frozen=True)
class Request:
    """Who wants to act on which case, when, and having seen which revision of it."""

    case_id: UUID
    signer: Signer
    at: datetime
    """Kept as given, unless the case has changed later than that by another machine's clock."""
    revision: int | None = None
    """``None``: whichever it is now."""


@dataclass(frozen=True)
class Verification:
    """What a doctor says of the study."""

    decision: Decision
    finding: str | None = None
    """The doctor's own; only where they override."""
    notes: str = ""


@dataclass(frozen=True)
class Words:
    """A coded reason, and notes in a person's words."""

    reason: ReturnReason | RejectionReason | HoldReleaseReason
    notes: str


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
        _intervene(
            transaction, _Intervening(request, words, Act.RETURN, trigger, voided), case, after
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
        _intervene(
            transaction, _Intervening(request, words, Act.REJECTION, trigger, voided), case, after
        )
        return after


def release_hold(desk: Desk, request: Request, words: Words) -> Case:
    """Let a case go on that was on hold; results that waited for it leave now.

    Raises
    ------
    Refusal
        `WrongRole` unless an admin asks, `UnknownCase`, `StaleCase`, or `IllegalTransition` where
        it is not on hold.
    """
    with desk.database.transaction() as transaction:
        _require_role(request.signer, Stage.ADMIN)
        case, request = _case(transaction.connection, request)
        after = moves.release_hold(case, request.at)
        _intervene(
            transaction,
            _Intervening(request, words, Act.HOLD_RELEASE, Trigger.HOLD_RELEASED, []),
            case,
            after,
        )
        dispatch.release_results(transaction, after, desk.destinations, Occasion(request.at))
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
        _require_role(request.signer, stage)
        connection = transaction.connection
        case, request = _case(connection, request)
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
        entry = Entry(
            _TRIGGERS[stage], request.at, actor=str(request.signer.user_id), details=details
        )
        cases.change(connection, case, after, entry)
        occasion = Occasion(request.at)
        dispatch.release_results(transaction, after, desk.destinations, occasion)
        if after.status is CaseStatus.REPORT_READY:
            dispatch.request_report(transaction, after, occasion)
        return after


@dataclass(frozen=True)
class _Intervening:
    request: Request
    words: Words
    act: Act
    trigger: Trigger
    voided: list[Signature]


def _intervene(transaction: Transaction, doing: _Intervening, before: Case, after: Case) -> None:
    connection, request = transaction.connection, doing.request
    done = Intervention(
        id=derived_id(doing.act, before.id, before.version, before.revision),
        case_id=before.id,
        case_version=before.version,
        act=doing.act,
        signer=request.signer,
        reason_code=doing.words.reason,
        notes=doing.words.notes,
        at=request.at,
    )
    details = {
        "intervention_id": str(done.id),
        "content_sha256": cases.keep_intervention(connection, done),
        "voided": cases.void(connection, doing.voided, request.at),
    }
    entry = Entry(
        doing.trigger,
        request.at,
        actor=str(request.signer.user_id),
        reason_code=doing.words.reason,
        details=details,
    )
    cases.change(connection, before, after, entry)


def _case(connection: Connection, request: Request) -> tuple[Case, Request]:
    """Return the case, and the request at a time after all that happened to the case before.

    The clock of another machine may be ahead of ours: an approval from before the doctor's
    signature would rest on nothing.
    """
    case = cases.find(connection, request.case_id)
    if case is None:
        raise UnknownCase("there is no case of this id")
    if request.revision is not None and request.revision != case.revision:
        raise StaleCase("the case has changed since you looked at it: read it again")
    return case, replace(request, at=max(request.at, case.changed_at + timedelta(microseconds=1)))


def _case_at_stage_of(transaction: Transaction, request: Request) -> tuple[Case, Request]:
    """Return what `_case` does, once it is sure that the case waits for the signer's role."""
    case, request = _case(transaction.connection, request)
    # A case without a model waits for nobody; a doctor may open it by hand.
    stage = Stage.DOCTOR if case.status is CaseStatus.NO_MODEL else case.stage
    if stage is None:
        raise IllegalTransition(f"the case is {case.status} and waits for nobody")
    _require_role(request.signer, stage)
    return case, request


def _earlier_stage(signer: Signer, to: Stage | None) -> Stage:
    own = _ORDER.index(Stage(signer.role))
    if own == 0:
        raise IllegalTransition("there is no stage before the doctor's")
    target = to or _ORDER[own - 1]
    if _ORDER.index(target) >= own:
        raise IllegalTransition("stage: a case is returned to an earlier stage than one's own")
    return target


def _require_role(signer: Signer, stage: Stage) -> None:
    if signer.role != stage:
        raise WrongRole(f"this is for the {stage}")


def _require_another_signer(
    signer: Signer, stage: Stage, signed_before: Sequence[Signature]
) -> None:
    # Voided signatures count: two eyes do not become four because a case went back.
    for each in signed_before:
        if each.signer.user_id == signer.user_id and each.stage is not stage:
            raise SameSigner(f"you have signed this version as its {each.stage} already")
