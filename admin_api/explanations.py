"""Heat maps of classes that somebody asks for; ``inference_worker`` makes them.

They are additional: the case, its findings and what is signed and sent stay as they are.
"""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row, select

from admin_api.case_queries import version_shown
from admin_api.cases import CaseId, case_row, kept
from admin_api.identity import SignedIn
from admin_api.installation import ApiDependency
from imaging_store.schema.results import explanation
from imaging_store.schema.workflow import inference_result
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.inference import ExplanationRequested, InferenceCompleted, ModelReference
from service_runtime.database import Database
from service_runtime.errors import PermanentError
from service_runtime.messaging import outbox
from service_runtime.problem_details import Problem

router = APIRouter(prefix="/cases/{case_id}/explanations", tags=["cases"])

_SOURCE = "admin_api"
_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}
_DICOM: dict[int | str, dict[str, Any]] = {200: {"content": {"application/dicom": {}}}}
_WAIT_S = 2

UidPath = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$")]


class NotExplainable(PermanentError):
    """Nothing was read that could be explained, or it has no such class; says what there is."""


class Asked(BaseModel):
    """Of which reading, and which class."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: str = Field(max_length=64)
    version: str = Field(max_length=16)
    label: str = Field(min_length=1, max_length=64)
    failures_known: int = Field(default=0, ge=0)
    """The ``failures`` of an answer, repeated to have it tried again; only another is told then."""


class ExplanationView(BaseModel):
    """What came of a request."""

    model: str
    version: str
    label: str
    sop_instance_uid: str | None
    """Of the Secondary Capture; none where it could not be made, or not yet."""
    failure: str | None
    """Why it could not."""
    failures: int
    """How often it could not."""
    answered_at: datetime | None
    """None while the worker is at it."""


class Explanations(BaseModel):
    """What was asked for of the version shown, and has been answered."""

    items: list[ExplanationView]


@router.get("")
def list_explanations(_user: SignedIn, api: ApiDependency, case_id: CaseId) -> Explanations:
    """List the heat maps that somebody has asked for."""
    with api.database.reading() as connection:
        row = case_row(connection, UUID(case_id))
        found = connection.execute(
            select(explanation)
            .where(
                explanation.c.case_id == row.id, explanation.c.case_version == version_shown(row)
            )
            .order_by(explanation.c.model_name, explanation.c.label)
        )
        return Explanations(items=[_view(each) for each in found])


@router.post("", responses={202: {"model": ExplanationView}})
def ask_for_explanation(
    _user: SignedIn, api: ApiDependency, case_id: CaseId, body: Asked, response: Response
) -> ExplanationView:
    """Ask for the heat map of a class; 202 until there is one, or a ``failure``, then 200.

    What has failed is tried again only where ``failures_known`` says that the failure is known.
    """
    with api.database.reading() as connection:
        row = case_row(connection, UUID(case_id))
    request = ExplanationRequested(
        case_id=row.id,
        case_version=version_shown(row),
        model=ModelReference(name=body.model, version=body.version),
        label=body.label,
    )
    try:
        view = ask(api.database, request, api.clock(), body.failures_known)
    except NotExplainable as error:
        raise Problem(HTTPStatus.NOT_FOUND, "not-explainable", str(error)) from None
    if view.answered_at is None:
        response.status_code = HTTPStatus.ACCEPTED
        response.headers["Retry-After"] = str(_WAIT_S)
    return view


@router.get("/{sop_instance_uid}/heatmap.png", response_class=Response, responses=_PNG)
def read_explanation(
    _user: SignedIn, api: ApiDependency, case_id: CaseId, sop_instance_uid: UidPath
) -> Response:
    """Get the source image with the heat map of the class over it."""
    with api.database.reading() as connection:
        key = _made(connection, case_id, sop_instance_uid).picture_key
    return kept(api, key, "image/png")


@router.get("/{sop_instance_uid}/instance.dcm", response_class=Response, responses=_DICOM)
def read_instance(
    _user: SignedIn, api: ApiDependency, case_id: CaseId, sop_instance_uid: UidPath
) -> Response:
    """Get the Secondary Capture, a Part 10 file. It is sent to no PACS."""
    with api.database.reading() as connection:
        key = _made(connection, case_id, sop_instance_uid).key
    return kept(api, key, "application/dicom")


def ask(
    database: Database, request: ExplanationRequested, at: datetime, failures_known: int
) -> ExplanationView:
    """Return the explanation that there is, or have it made: once, however often it is asked for.

    Where it has failed, that is the answer; it is tried again for who says how often it has.

    Raises
    ------
    NotExplainable
        The model has not read this version, or has no such class.
    """
    with database.transaction() as transaction:
        connection = transaction.connection
        _require_class(connection, request)
        found = find(connection, request)
        failures = 0 if found is None else found.failures
        if found is not None and (found.sop_instance_uid or failures != failures_known):
            return _view(found)
        outbox.send(
            transaction,
            Envelope.of(
                request,
                source=_SOURCE,
                time=at,
                id=derived_id(request.TYPE, *_key(request).values(), failures),
            ),
        )
    return ExplanationView(
        model=request.model.name,
        version=request.model.version,
        label=request.label,
        sop_instance_uid=None,
        failure=None,
        failures=failures,
        answered_at=None,
    )


def find(connection: Connection, request: ExplanationRequested) -> Row[Any] | None:
    """Return what came of a request; ``None`` while it has not been answered."""
    return connection.execute(
        select(explanation).where(
            *(explanation.c[name] == value for name, value in _key(request).items())
        )
    ).one_or_none()


def _key(request: ExplanationRequested) -> dict[str, Any]:
    return {
        "case_id": request.case_id,
        "case_version": request.case_version,
        "model_name": request.model.name,
        "model_version": request.model.version,
        "label": request.label,
    }


def _require_class(connection: Connection, request: ExplanationRequested) -> None:
    asked = {name: value for name, value in _key(request).items() if name != "label"}
    completed = connection.execute(
        select(inference_result.c.completed).where(
            *(inference_result.c[name] == value for name, value in asked.items())
        )
    ).scalar()
    if completed is None:
        raise NotExplainable("no such model has read the version of the case that is shown")
    labels = [each.label for each in InferenceCompleted.model_validate(completed).probabilities]
    if request.label not in labels:
        raise NotExplainable(f"label: the model's classes are {', '.join(labels)}")


def _made(connection: Connection, case_id: str, sop_instance_uid: str) -> Row[Any]:
    """Return one of the version shown: another may show what does not belong to the study."""
    case = case_row(connection, UUID(case_id))
    row = connection.execute(
        select(explanation).where(
            explanation.c.case_id == case.id,
            explanation.c.case_version == version_shown(case),
            explanation.c.sop_instance_uid == sop_instance_uid,
        )
    ).one_or_none()
    if row is None:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "unknown-explanation",
            "the version of the case that is shown has none of this UID",
        )
    return row


def _view(row: Row[Any]) -> ExplanationView:
    return ExplanationView(
        model=row.model_name,
        version=row.model_version,
        label=row.label,
        sop_instance_uid=row.sop_instance_uid,
        failure=row.failure,
        failures=row.failures,
        answered_at=row.answered_at,
    )
