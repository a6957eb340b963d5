"""The registry of models: what is installed, which version is asked, and what rules would do."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel
from sqlalchemy import Connection, select

from admin_api import model_comparison, model_decisions
from admin_api.identity import SignedIn, SignedInAdmin
from admin_api.installation import Api, ApiDependency
from admin_api.model_comparison import Comparison
from admin_api.model_decisions import Deciding, NoSuchModel, NotPossible
from admin_api.sign_off import NotesNeeded
from admin_api.users import User
from imaging_store.model_registry import (
    Decided,
    ModelDecision,
    ModelState,
    RegisteredModel,
    decided,
    registered_models,
)
from imaging_store.schema.results import refused_model
from message_contracts.inference import ModelReference
from service_runtime.problem_details import Problem
from workflow_engine.commands import (
    Explanation,
    ModelReport,
    NoSuchTime,
    explain_study,
    report_on_model,
    watched_time,
)

router = APIRouter(prefix="/models", tags=["models"])
log = structlog.get_logger()


class Why(BaseModel):
    """Why somebody decides so; kept with the decision."""

    why: NotesNeeded


class DecisionView(BaseModel):
    """What a person decided about a version."""

    version: str
    decision: ModelDecision
    at: datetime
    by: str
    why: str


class ModelView(BaseModel):
    """A version of a model, and what it does now."""

    name: str
    version: str
    state: ModelState
    device_uid: str
    weights_sha256: str
    intended_use: str
    registered_at: datetime
    loaded_at: datetime | None
    """When a worker has loaded its network last. None: none has yet; the first study that asks for
    it shows whether the network fits its description."""
    last_decision: DecisionView | None
    """None: it is so because nobody has decided otherwise."""


class RefusedModel(BaseModel):
    """A model folder that cannot be used; the reason names the field at fault."""

    folder: str
    name: str | None
    version: str | None
    reason: str
    refused_at: datetime


class Registry(BaseModel):
    """Every version that was ever installed, and what was refused."""

    models: list[ModelView]
    refused: list[RefusedModel]


class ModelDetail(ModelView):
    """A version with all that it says of itself, and what was decided about its name."""

    description: dict[str, Any]
    decisions: list[DecisionView]


class Reason(BaseModel):
    """What one part of a rule says."""

    fits: bool
    reason: str


class MatchView(BaseModel):
    """Instances of which a rule says the same."""

    instance_count: int
    sop_instance_uids: list[str]
    """The first of them."""
    read: bool
    outranked_by: list[ModelReference]
    """Models of a higher priority, whose rules fit as well and which read these instead."""
    reasons: list[Reason]


class ModelMatch(BaseModel):
    """What one model would read of a study, and why."""

    model: ModelReference
    shadow: bool
    priority: int
    asked: bool
    matches: list[MatchView]


class DryRun(BaseModel):
    """What the rules say of a stored study as it is now; nobody is asked anything."""

    no_model: bool
    """Its case would be NO_MODEL."""
    models: list[ModelMatch]


_MOST_UIDS = 10

NamePath = Annotated[str, Path(max_length=64, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
VersionPath = Annotated[str, Path(max_length=16, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]


@router.get("")
def list_models(api: ApiDependency, _user: SignedIn) -> Registry:
    """Get every version that was ever installed with what it does, and what was refused."""
    with api.database.reading() as connection:
        refused = connection.execute(select(refused_model).order_by(refused_model.c.folder)).all()
        return Registry(
            models=[ModelView(**_fields(each)) for each in registered_models(connection)],
            refused=[
                RefusedModel(
                    folder=row.folder,
                    name=row.model_name,
                    version=row.model_version,
                    reason=row.reason,
                    refused_at=row.refused_at,
                )
                for row in refused
            ],
        )


@router.get("/match")
def match_study(
    api: ApiDependency,
    _user: SignedIn,
    study_instance_uid: Annotated[str, Query(pattern=r"^[\x21-\x7e]{1,64}$")],
) -> DryRun:
    """Get what every model would read of a stored study, and the reason for each part."""
    with api.database.reading() as connection:
        explained = explain_study(connection, study_instance_uid)
    if explained is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-such-study", "there is no study of this UID")
    return DryRun(
        no_model=not any(each.is_asked and not each.shadow for each in explained),
        models=[_match(each) for each in explained],
    )


@router.get("/{name}/versions/{version}")
def show_model(
    name: NamePath, version: VersionPath, api: ApiDependency, _user: SignedIn
) -> ModelDetail:
    """Get all that a version says of itself, and what was decided about its name."""
    with api.database.reading() as connection:
        found = _registered(connection, name, version)
        decisions = [_decision(each) for each in decided(connection) if each.model.name == name]
    return ModelDetail(**_fields(found), description=found.description, decisions=decisions)


@router.get("/{name}/versions/{version}/comparison")
def compare_model(
    name: NamePath, version: VersionPath, api: ApiDependency, _user: SignedInAdmin
) -> Comparison:
    """Compare what a version read in shadow with what the active one read and doctors signed."""
    with api.database.reading() as connection:
        found = _registered(connection, name, version)
        return model_comparison.compare(connection, found.reference)


@router.get("/{name}/versions/{version}/monitoring")
def monitor_model(
    name: NamePath,
    version: VersionPath,
    api: ApiDependency,
    _user: SignedInAdmin,
    since: Annotated[AwareDatetime | None, Query()] = None,
    until: Annotated[AwareDatetime | None, Query()] = None,
) -> ModelReport:
    """Get how a version did: volume, findings, refusals, agreement with doctors, drift of inputs.

    Of what it answered from ``since`` on and before ``until``: without these, in the last 30 days.
    """
    try:
        begin, end = watched_time(since, until, api.clock())
    except NoSuchTime as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "no-such-time", str(error)) from None
    with api.database.reading() as connection:
        return report_on_model(connection, _registered(connection, name, version), begin, end)


@router.post("/{name}/versions/{version}/activate")
def activate_model(
    name: NamePath, version: VersionPath, words: Why, api: ApiDependency, user: SignedInAdmin
) -> ModelView:
    """Have a version asked from the next study on, in the place of the one that is."""
    reference = ModelReference(name=name, version=version)
    return _decided(api, user, words, reference, ModelDecision.ACTIVATE)


@router.post("/{name}/versions/{version}/shadow")
def put_model_in_shadow(
    name: NamePath, version: VersionPath, words: Why, api: ApiDependency, user: SignedInAdmin
) -> ModelView:
    """Have a version read what it would be asked about, for comparison alone."""
    reference = ModelReference(name=name, version=version)
    return _decided(api, user, words, reference, ModelDecision.SHADOW)


@router.post("/{name}/versions/{version}/retire")
def retire_model(
    name: NamePath, version: VersionPath, words: Why, api: ApiDependency, user: SignedInAdmin
) -> ModelView:
    """Have a version neither asked nor read in shadow any more."""
    reference = ModelReference(name=name, version=version)
    return _decided(api, user, words, reference, ModelDecision.RETIRE)


@router.post("/{name}/roll-back")
def roll_model_back(
    name: NamePath, words: Why, api: ApiDependency, user: SignedInAdmin
) -> ModelView:
    """Have the version asked that was before; done again, it goes one further back."""
    reference = ModelReference(name=name, version="")
    return _decided(api, user, words, reference, ModelDecision.ROLL_BACK)


_ACTS = {
    ModelDecision.ACTIVATE: model_decisions.activate,
    ModelDecision.SHADOW: model_decisions.put_in_shadow,
    ModelDecision.RETIRE: model_decisions.retire,
}


def _decided(
    api: Api, user: User, words: Why, reference: ModelReference, decision: ModelDecision
) -> ModelView:
    deciding = Deciding(user.printed_name, words.why, api.clock())
    try:
        if decision is ModelDecision.ROLL_BACK:
            reference = model_decisions.roll_back(api.database, reference.name, deciding)
        else:
            _ACTS[decision](api.database, reference, deciding)
    except NoSuchModel:
        raise _no_such_model() from None
    except NotPossible as error:
        raise Problem(HTTPStatus.CONFLICT, "model-not-possible", str(error)) from None
    log.info(
        "model.decided",
        model=reference.name,
        model_version=reference.version,
        decision=decision.value,
        user_id=user.id,
    )
    with api.database.reading() as connection:
        return ModelView(**_fields(_registered(connection, reference.name, reference.version)))


def _registered(connection: Connection, name: str, version: str) -> RegisteredModel:
    for each in registered_models(connection):
        if (each.reference.name, each.reference.version) == (name, version):
            return each
    raise _no_such_model()


def _no_such_model() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "no-such-model", "this version was never installed")


def _fields(registered: RegisteredModel) -> dict[str, Any]:
    last = registered.last_decision
    return {
        "name": registered.reference.name,
        "version": registered.reference.version,
        "state": registered.state,
        "device_uid": registered.device_uid,
        "weights_sha256": registered.weights_sha256,
        "intended_use": str(registered.description.get("intended_use", "")),
        "registered_at": registered.registered_at,
        "loaded_at": registered.loaded_at,
        "last_decision": None if last is None else _decision(last),
    }


def _decision(each: Decided) -> DecisionView:
    return DecisionView(
        version=each.model.version, decision=each.decision, at=each.at, by=each.by, why=each.why
    )


def _match(explained: Explanation) -> ModelMatch:
    return ModelMatch(
        model=explained.model,
        shadow=explained.shadow,
        priority=explained.priority,
        asked=explained.is_asked,
        matches=[
            MatchView(
                instance_count=len(each.sop_instance_uids),
                sop_instance_uids=list(each.sop_instance_uids[:_MOST_UIDS]),
                read=each.is_read,
                outranked_by=list(each.outranked_by),
                reasons=[Reason(fits=said.fits, reason=said.reason) for said in each.verdicts],
            )
            for each in explained.matches
        ],
    )
