"""A case, and the table of every move it may make. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

from message_contracts.case import CaseStatus, Stage
from message_contracts.identifiers import case_id_of
from workflow_engine.refusals import IllegalTransition, OnHold


class Trigger(StrEnum):
    """What happened to a case; the history names it."""

    OPENED = "opened"
    MODEL_ASKED = "model_asked"
    """A version is complete, and a rule sends it to a model."""
    NO_RULE_FITS = "no_rule_fits"
    """A version is complete, and no rule sends it to a model."""
    AMENDMENT_MODEL_ASKED = "amendment_model_asked"
    """Images came after the report, and a rule sends the new version to a model."""
    AMENDMENT_NO_RULE_FITS = "amendment_no_rule_fits"
    MODEL_ANSWERED = "model_answered"
    """One of several models has, and the case waits for the others; or what failed before was made
    again, and failed for another reason."""
    INFERENCE_COMPLETED = "inference_completed"
    """All have that were asked, and one at least has read the study."""
    INFERENCE_FAILED = "inference_failed"
    DOCTOR_SIGNED = "doctor_signed"
    PHARMACIST_SIGNED = "pharmacist_signed"
    APPROVED = "approved"
    RETURNED_TO_DOCTOR = "returned_to_doctor"
    RETURNED_TO_PHARMACIST = "returned_to_pharmacist"
    REJECTED = "rejected"
    AMENDMENT_REJECTED = "amendment_rejected"
    """The new version ends; the signed report stays in force."""
    HELD = "held"
    HOLD_RELEASED = "hold_released"
    CONFLICT_DECIDED = "conflict_decided"
    CONFLICT_SETTLED = "conflict_settled"
    """What was decided about a conflict has been carried out."""
    CONFLICT_UNSETTLED = "conflict_unsettled"
    """It could not be: a person decides anew."""
    COMPLETION_REQUESTED = "completion_requested"
    """A person says that what has arrived of the study is all of it."""
    MADE_URGENT = "made_urgent"
    """A person says that its study is to be read before others."""
    DELIVERY_REQUESTED = "delivery_requested"
    DELIVERY_ANSWERED = "delivery_answered"
    REJECTION_REQUESTED = "rejection_requested"
    """A PACS has results that are not to be used, and is told so."""
    LATE_RESULT_RECORDED = "late_result_recorded"
    """A model answered for a version that is no longer under way."""


ANY_STAGE: frozenset[Stage | None] = frozenset({None, *Stage})
_DOCTOR: frozenset[Stage | None] = frozenset({Stage.DOCTOR})
_PHARMACIST: frozenset[Stage | None] = frozenset({Stage.PHARMACIST})
_NOBODY: frozenset[Stage | None] = frozenset({None})


@dataclass(frozen=True)
class Transition:
    """Where a trigger takes a case, and whose turn it is then."""

    to_status: CaseStatus
    stage: Stage | None
    from_stages: frozenset[Stage | None] = ANY_STAGE
    """Whose turn it must have been; told where the status alone leaves it open."""


_S, _T = CaseStatus, Trigger
_ASKED = Transition(_S.PENDING_AI, None)
_UNREAD = Transition(_S.NO_MODEL, None)
_AMENDMENT_ASKED = Transition(_S.AMENDING, None)
_AMENDMENT_UNREAD = Transition(_S.AMENDING, Stage.DOCTOR)
_VERIFIED = Transition(_S.DOCTOR_VERIFIED, Stage.PHARMACIST)
_REVIEWED = Transition(_S.PHARMACIST_COMPLETED, Stage.ADMIN)
_TO_DOCTOR = Transition(_S.RETURNED, Stage.DOCTOR)
_ENDED = Transition(_S.REJECTED, None)
_REPORT_STANDS = Transition(_S.REPORT_READY, None)

TRANSITIONS: Mapping[tuple[CaseStatus, Trigger], Transition] = MappingProxyType(
    {
        (_S.RECEIVING, _T.MODEL_ASKED): _ASKED,
        (_S.RECEIVING, _T.NO_RULE_FITS): _UNREAD,
        # A model answers.
        (_S.PENDING_AI, _T.INFERENCE_COMPLETED): Transition(_S.AI_ANALYZED, Stage.DOCTOR),
        (_S.PENDING_AI, _T.INFERENCE_FAILED): Transition(_S.AI_FAILED, Stage.DOCTOR),
        # A failed request, made again, may succeed.
        (_S.AI_FAILED, _T.INFERENCE_COMPLETED): Transition(_S.AI_ANALYZED, Stage.DOCTOR),
        (_S.AI_ANALYZED, _T.INFERENCE_COMPLETED): Transition(_S.AI_ANALYZED, Stage.DOCTOR),
        (_S.AMENDING, _T.INFERENCE_COMPLETED): Transition(_S.AMENDING, Stage.DOCTOR),
        (_S.AMENDING, _T.INFERENCE_FAILED): Transition(_S.AMENDING, Stage.DOCTOR, _NOBODY),
        # Three people sign. A case without a model waits for nobody: a doctor opens it by hand.
        (_S.NO_MODEL, _T.DOCTOR_SIGNED): _VERIFIED,
        (_S.AI_FAILED, _T.DOCTOR_SIGNED): _VERIFIED,
        (_S.AI_ANALYZED, _T.DOCTOR_SIGNED): _VERIFIED,
        (_S.RETURNED, _T.DOCTOR_SIGNED): replace(_VERIFIED, from_stages=_DOCTOR),
        (_S.AMENDING, _T.DOCTOR_SIGNED): replace(_VERIFIED, from_stages=_DOCTOR),
        (_S.DOCTOR_VERIFIED, _T.PHARMACIST_SIGNED): _REVIEWED,
        (_S.RETURNED, _T.PHARMACIST_SIGNED): replace(_REVIEWED, from_stages=_PHARMACIST),
        (_S.PHARMACIST_COMPLETED, _T.APPROVED): Transition(_S.REPORT_READY, None),
        # One of them sends it back.
        (_S.DOCTOR_VERIFIED, _T.RETURNED_TO_DOCTOR): _TO_DOCTOR,
        (_S.RETURNED, _T.RETURNED_TO_DOCTOR): replace(_TO_DOCTOR, from_stages=_PHARMACIST),
        (_S.PHARMACIST_COMPLETED, _T.RETURNED_TO_DOCTOR): _TO_DOCTOR,
        (_S.PHARMACIST_COMPLETED, _T.RETURNED_TO_PHARMACIST): Transition(
            _S.RETURNED, Stage.PHARMACIST
        ),
        # One of them ends it.
        (_S.NO_MODEL, _T.REJECTED): _ENDED,
        (_S.AI_FAILED, _T.REJECTED): _ENDED,
        (_S.AI_ANALYZED, _T.REJECTED): _ENDED,
        (_S.DOCTOR_VERIFIED, _T.REJECTED): _ENDED,
        (_S.PHARMACIST_COMPLETED, _T.REJECTED): _ENDED,
        (_S.RETURNED, _T.REJECTED): _ENDED,
        (_S.AMENDING, _T.AMENDMENT_REJECTED): replace(_REPORT_STANDS, from_stages=_DOCTOR),
        (_S.DOCTOR_VERIFIED, _T.AMENDMENT_REJECTED): _REPORT_STANDS,
        (_S.PHARMACIST_COMPLETED, _T.AMENDMENT_REJECTED): _REPORT_STANDS,
        (_S.RETURNED, _T.AMENDMENT_REJECTED): _REPORT_STANDS,
        # Images come late, before there is a report. They must not vanish from a rejected case.
        (_S.NO_MODEL, _T.MODEL_ASKED): _ASKED,
        (_S.NO_MODEL, _T.NO_RULE_FITS): _UNREAD,
        (_S.PENDING_AI, _T.MODEL_ASKED): _ASKED,
        (_S.PENDING_AI, _T.NO_RULE_FITS): _UNREAD,
        (_S.AI_FAILED, _T.MODEL_ASKED): _ASKED,
        (_S.AI_FAILED, _T.NO_RULE_FITS): _UNREAD,
        (_S.AI_ANALYZED, _T.MODEL_ASKED): _ASKED,
        (_S.AI_ANALYZED, _T.NO_RULE_FITS): _UNREAD,
        (_S.DOCTOR_VERIFIED, _T.MODEL_ASKED): _ASKED,
        (_S.DOCTOR_VERIFIED, _T.NO_RULE_FITS): _UNREAD,
        (_S.PHARMACIST_COMPLETED, _T.MODEL_ASKED): _ASKED,
        (_S.PHARMACIST_COMPLETED, _T.NO_RULE_FITS): _UNREAD,
        (_S.RETURNED, _T.MODEL_ASKED): _ASKED,
        (_S.RETURNED, _T.NO_RULE_FITS): _UNREAD,
        (_S.REJECTED, _T.MODEL_ASKED): _ASKED,
        (_S.REJECTED, _T.NO_RULE_FITS): _UNREAD,
        # Images come late, after it: the report stays in force until the new version is signed.
        (_S.REPORT_READY, _T.AMENDMENT_MODEL_ASKED): _AMENDMENT_ASKED,
        (_S.REPORT_READY, _T.AMENDMENT_NO_RULE_FITS): _AMENDMENT_UNREAD,
        (_S.AMENDING, _T.AMENDMENT_MODEL_ASKED): _AMENDMENT_ASKED,
        (_S.AMENDING, _T.AMENDMENT_NO_RULE_FITS): _AMENDMENT_UNREAD,
        (_S.DOCTOR_VERIFIED, _T.AMENDMENT_MODEL_ASKED): _AMENDMENT_ASKED,
        (_S.DOCTOR_VERIFIED, _T.AMENDMENT_NO_RULE_FITS): _AMENDMENT_UNREAD,
        (_S.PHARMACIST_COMPLETED, _T.AMENDMENT_MODEL_ASKED): _AMENDMENT_ASKED,
        (_S.PHARMACIST_COMPLETED, _T.AMENDMENT_NO_RULE_FITS): _AMENDMENT_UNREAD,
        (_S.RETURNED, _T.AMENDMENT_MODEL_ASKED): _AMENDMENT_ASKED,
        (_S.RETURNED, _T.AMENDMENT_NO_RULE_FITS): _AMENDMENT_UNREAD,
    }
)
"""Every permitted move, one row each; any other pair raises."""

_ONLY_WITHOUT_A_REPORT = frozenset({_T.MODEL_ASKED, _T.NO_RULE_FITS, _T.REJECTED})
_ONLY_WITH_A_REPORT = frozenset(
    {_T.AMENDMENT_MODEL_ASKED, _T.AMENDMENT_NO_RULE_FITS, _T.AMENDMENT_REJECTED}
)
# A rejection sends nothing: a study of the wrong patient can be ended without releasing it first.
_REFUSED_ON_HOLD = frozenset(
    {
        _T.DOCTOR_SIGNED,
        _T.PHARMACIST_SIGNED,
        _T.APPROVED,
        _T.RETURNED_TO_DOCTOR,
        _T.RETURNED_TO_PHARMACIST,
    }
)


@dataclass(frozen=True)
class Case:
    """One study on its way to a report; what the table ``cases`` holds of it."""

    id: UUID
    study_instance_uid: str
    status: CaseStatus
    stage: Stage | None
    version: int
    """The study version under way; counts from 1."""
    revision: int
    """Raised by every change."""
    report_version: int | None
    """The version whose signed report is in force."""
    on_hold: bool
    hold_reason: str | None
    reason_code: str | None
    """Why the case was last returned or rejected, while it is."""
    opened_at: datetime
    changed_at: datetime

    @property
    def version_shown(self) -> int:
        """The version that readers see: at REPORT_READY the one whose report is in force."""
        if self.status is CaseStatus.REPORT_READY and self.report_version is not None:
            return self.report_version
        return self.version


def open_case(study_instance_uid: str, at: datetime) -> Case:
    """Return the case of a study whose first instance has arrived."""
    return Case(
        id=case_id_of(study_instance_uid),
        study_instance_uid=study_instance_uid,
        status=CaseStatus.RECEIVING,
        stage=None,
        version=1,
        revision=1,
        report_version=None,
        on_hold=False,
        hold_reason=None,
        reason_code=None,
        opened_at=at,
        changed_at=at,
    )


def advance(case: Case, trigger: Trigger, at: datetime) -> Case:
    """Return the case as ``trigger`` leaves it.

    Raises
    ------
    IllegalTransition
        The table has no row for this status and trigger, or the row is for another stage.
    OnHold
        A person wants to sign or return a case that is on hold.
    """
    transition = TRANSITIONS.get((case.status, trigger))
    if transition is None or case.stage not in transition.from_stages:
        raise IllegalTransition(
            f"{trigger} is not possible: the case is {case.status}"
            + (f", waiting for the {case.stage}" if case.stage else "")
        )
    if trigger in (
        _ONLY_WITHOUT_A_REPORT if case.report_version is not None else _ONLY_WITH_A_REPORT
    ):
        raise IllegalTransition(
            f"{trigger} is not possible: "
            f"{'a' if case.report_version is not None else 'no'} signed report is in force"
        )
    if case.on_hold and trigger in _REFUSED_ON_HOLD:
        raise OnHold(f"the case is on hold: {case.hold_reason}")
    return replace(
        case,
        status=transition.to_status,
        stage=transition.stage,
        report_version=case.version if trigger is Trigger.APPROVED else case.report_version,
        reason_code=None,
        revision=case.revision + 1,
        changed_at=at,
    )


def is_news(case: Case, study_version: int) -> bool:
    """Tell whether a complete study version is one that the case has not taken up yet.

    Messages come in any order and more than once: a version is taken up once, and never after a
    later one.
    """
    if case.status is CaseStatus.RECEIVING:
        return study_version >= case.version
    return study_version > case.version


def completion(case: Case, *, model_asked: bool) -> Trigger:
    """Return what a complete study version does to this case."""
    if case.report_version is None:
        return Trigger.MODEL_ASKED if model_asked else Trigger.NO_RULE_FITS
    return Trigger.AMENDMENT_MODEL_ASKED if model_asked else Trigger.AMENDMENT_NO_RULE_FITS


def rejection(case: Case) -> Trigger:
    """Return what a rejection does: a signed report outlives the amendment that is rejected."""
    return Trigger.REJECTED if case.report_version is None else Trigger.AMENDMENT_REJECTED


def begin_version(case: Case, study_version: int, trigger: Trigger, at: datetime) -> Case:
    """Return the case as it is once a complete study version has been taken up."""
    return replace(advance(case, trigger, at), version=study_version)


def under_holds(case: Case, reasons: Sequence[str], at: datetime) -> Case:
    """Return the case with these holds open, the oldest first; without any it goes on.

    While there is one nothing of the case is signed or sent.
    """
    return replace(
        case,
        on_hold=bool(reasons),
        hold_reason=reasons[0] if reasons else None,
        revision=case.revision + 1,
        changed_at=at,
    )
