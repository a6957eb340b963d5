"""Signing cases, sending them back, ending them, letting them go on."""

from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from admin_api.case_views import CaseDetail
from admin_api.cases import CaseId, case_detail, case_row
from admin_api.identity import (
    Confirmation,
    ConfirmIdentity,
    Password,
    SignedIn,
    confirm_by_password,
)
from admin_api.installation import Api, ApiDependency
from admin_api.users import User
from message_contracts.case import Stage
from service_runtime.problem_details import Problem
from workflow_engine import commands
from workflow_engine.commands import (
    CompletionRequestReason,
    Decision,
    DecisionReason,
    HoldReleaseReason,
    Refusal,
    RejectionReason,
    ReturnReason,
    Signer,
    UrgencyReason,
    Verification,
    Words,
)

router = APIRouter(tags=["sign-off"])
_LOG = structlog.get_logger()

_TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
"""Without what neither PostgreSQL (NUL) nor FHIR's ``string`` can hold."""

Notes = Annotated[str, StringConstraints(strip_whitespace=True, max_length=4000, pattern=_TEXT)]
NotesNeeded = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000, pattern=_TEXT)
]
Finding = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000, pattern=_TEXT)]

confirm_identity: ConfirmIdentity = confirm_by_password

_PROBLEMS: dict[type[Refusal], tuple[HTTPStatus, str]] = {
    commands.WrongRole: (HTTPStatus.FORBIDDEN, "wrong-role"),
    commands.UnknownCase: (HTTPStatus.NOT_FOUND, "unknown-case"),
    commands.IllegalTransition: (HTTPStatus.CONFLICT, "wrong-state"),
    commands.OnHold: (HTTPStatus.CONFLICT, "on-hold"),
    commands.SameSigner: (HTTPStatus.CONFLICT, "same-signer"),
    commands.StaleCase: (HTTPStatus.CONFLICT, "stale-case"),
    commands.NothingToAgreeWith: (HTTPStatus.CONFLICT, "nothing-to-agree-with"),
    commands.UndecidedConflict: (HTTPStatus.CONFLICT, "undecided-conflict"),
    commands.UnknownConflict: (HTTPStatus.NOT_FOUND, "unknown-conflict"),
    commands.AlreadyDecided: (HTTPStatus.CONFLICT, "already-decided"),
}


class Act(BaseModel):
    """What every act carries: the second component, and what the person has seen."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    password: Password
    revision: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """The case's revision as the person saw it; refused where it has changed since."""


class DoctorVerification(Act):
    """A doctor's word on the study."""

    decision: Decision
    finding: Finding | None = None
    """The doctor's own; needed to override, and for nothing else."""
    notes: Notes = ""
    """Needed except to agree."""

    @model_validator(mode="after")
    def _says_what_it_must(self) -> Self:
        if self.decision is Decision.OVERRIDE and not self.finding:
            raise PydanticCustomError("finding_needed", "finding: needed to override")
        if self.decision is not Decision.OVERRIDE and self.finding:
            raise PydanticCustomError("finding_unneeded", "finding: only to override")
        if self.decision is not Decision.AGREE and not self.notes:
            raise PydanticCustomError("notes_needed", "notes: needed except to agree")
        return self


class PharmacistReview(Act):
    """A pharmacist's word on medication."""

    notes: NotesNeeded


class Approval(Act):
    """An admin's release of the report."""


class ReturnToStage(Act):
    """Why a case goes back, and to whom."""

    reason_code: ReturnReason
    notes: NotesNeeded
    stage: Stage | None = None
    """By default the stage before one's own."""


class Rejection(Act):
    """Why a case ends without a report."""

    reason_code: RejectionReason
    notes: NotesNeeded


class HoldRelease(Act):
    """Why a case on hold may go on."""

    reason_code: HoldReleaseReason
    notes: NotesNeeded


class CompletionRequest(Act):
    """Why a study is taken as complete now."""

    reason_code: CompletionRequestReason
    notes: NotesNeeded


class UrgencyRequest(Act):
    """Why a study is to be read before others."""

    reason_code: UrgencyReason
    notes: NotesNeeded


class ReasonCode(BaseModel):
    """A coded reason and what it means."""

    code: str
    meaning: str


@router.get("/reason-codes")
def list_reason_codes(_user: SignedIn) -> dict[str, list[ReasonCode]]:
    """List the coded reasons of every act that needs one."""
    acts = {
        "return": ReturnReason,
        "rejection": RejectionReason,
        "hold_release": HoldReleaseReason,
        "completion": CompletionRequestReason,
        "urgency": UrgencyReason,
        "conflict_decision": DecisionReason,
    }
    return {
        act: [ReasonCode(code=each, meaning=commands.meaning(each)) for each in codes]
        for act, codes in acts.items()
    }


@router.post("/cases/{case_id}/doctor-verification")
def verify_as_doctor(
    user: SignedIn, api: ApiDependency, case_id: CaseId, body: DoctorVerification
) -> CaseDetail:
    """Sign the finding: agree with the model, override it, or call the study uninterpretable."""
    request = request_of(api, user, case_id, body, Stage.DOCTOR)
    verification = Verification(body.decision, body.finding, body.notes)
    return answer(api, commands.verify_as_doctor(api.desk, request, verification), user)


@router.post("/cases/{case_id}/pharmacist-review")
def review_as_pharmacist(
    user: SignedIn, api: ApiDependency, case_id: CaseId, body: PharmacistReview
) -> CaseDetail:
    """Sign the medication notes."""
    request = request_of(api, user, case_id, body, Stage.PHARMACIST)
    return answer(api, commands.review_as_pharmacist(api.desk, request, body.notes), user)


@router.post("/cases/{case_id}/approval")
def approve(user: SignedIn, api: ApiDependency, case_id: CaseId, body: Approval) -> CaseDetail:
    """Sign the report; it is final, and its delivery begins."""
    request = request_of(api, user, case_id, body, Stage.ADMIN)
    return answer(api, commands.approve(api.desk, request), user)


@router.post("/cases/{case_id}/return")
def send_back(
    user: SignedIn, api: ApiDependency, case_id: CaseId, body: ReturnToStage
) -> CaseDetail:
    """Send a case that waits for one's own role back to an earlier stage."""
    request = request_of(api, user, case_id, body)
    words = Words(body.reason_code, body.notes)
    return answer(api, commands.send_back(api.desk, request, words, body.stage), user)


@router.post("/cases/{case_id}/rejection")
def reject(user: SignedIn, api: ApiDependency, case_id: CaseId, body: Rejection) -> CaseDetail:
    """End a case that waits for one's own role; a signed report stays in force."""
    request = request_of(api, user, case_id, body)
    return answer(
        api, commands.reject(api.desk, request, Words(body.reason_code, body.notes)), user
    )


@router.post("/cases/{case_id}/hold-release")
def release_hold(
    user: SignedIn, api: ApiDependency, case_id: CaseId, body: HoldRelease
) -> CaseDetail:
    """Let a case go on that was on hold."""
    request = request_of(api, user, case_id, body, Stage.ADMIN)
    return answer(
        api, commands.release_hold(api.desk, request, Words(body.reason_code, body.notes)), user
    )


@router.post("/cases/{case_id}/completion", status_code=HTTPStatus.ACCEPTED)
def complete(
    user: SignedIn, api: ApiDependency, case_id: CaseId, body: CompletionRequest
) -> CaseDetail:
    """Have what has arrived of a study taken as all of it; the receiving service carries it out."""
    request = request_of(api, user, case_id, body, Stage.ADMIN)
    words = Words(body.reason_code, body.notes)
    return answer(api, commands.force_completion(api.desk, request, words), user)


@router.post("/cases/{case_id}/urgency", status_code=HTTPStatus.ACCEPTED)
def expedite(
    user: SignedIn, api: ApiDependency, case_id: CaseId, body: UrgencyRequest
) -> CaseDetail:
    """Have a study read before others, also where a model has been asked about it already."""
    request = request_of(api, user, case_id, body)
    words = Words(body.reason_code, body.notes)
    return answer(api, commands.expedite(api.desk, request, words), user)


async def on_refusal(_request: Request, error: Exception) -> JSONResponse:
    """Answer with the problem that a refusal of the workflow is."""
    for refusal, (status, type_) in _PROBLEMS.items():
        if isinstance(error, refusal):
            return Problem(status, type_, str(error)).response()
    raise error


def request_of(
    api: Api, user: User, case_id: str, body: Act, stage: Stage | None = None
) -> commands.Request:
    """Make sure of role, case and person, in this order, before anything is asked of the case."""
    if stage is not None and user.role != stage:
        raise Problem(HTTPStatus.FORBIDDEN, "wrong-role", f"this is for the {stage}")
    with api.database.reading() as connection:
        case_row(connection, UUID(case_id))
    authentication = confirm_identity(api, user, Confirmation(body.password))
    signer = Signer(user.id, user.printed_name, user.role, authentication)
    return commands.Request(UUID(case_id), signer, api.clock(), body.revision)


def answer(api: Api, case: commands.Case, user: User) -> CaseDetail:
    """Log who has acted, and return the case as it is now."""
    _LOG.info(
        "case.acted_on",
        case_id=case.id,
        case_version=case.version,
        status=case.status,
        stage=case.stage,
        user_id=user.id,
        role=user.role,
    )
    return case_detail(api, case.id)
