"""What admins decide about models. The one writer of ``model_decision``."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from imaging_store.model_registry import ModelDecision, ModelState, Standing, standing_of
from imaging_store.schema.administration import model_decision
from imaging_store.schema.results import model, refused_model
from message_contracts.inference import ModelReference
from service_runtime.database import Database
from service_runtime.errors import PermanentError


class NoSuchModel(PermanentError):
    """The version was never installed; the reason names those that were."""


class NotPossible(PermanentError):
    """The registry is as it was; the reason says what to do instead."""


@dataclass(frozen=True)
class Deciding:
    """Who decides, why, and when."""

    by: str
    why: str
    at: datetime


def note_addition(database: Database, reference: ModelReference, deciding: Deciding) -> None:
    """Note who has added a version; it changes nothing about which one is asked."""
    _decide(database, reference.name, ModelDecision.ADD, deciding, lambda *_: reference.version)


def activate(database: Database, reference: ModelReference, deciding: Deciding) -> None:
    """Have a version asked from the next study on, in the place of the one that is.

    Raises
    ------
    NoSuchModel
        It was never installed.
    NotPossible
        The workers have refused it.
    """

    def chosen(connection: Connection, standing: Standing) -> str | None:
        _require_usable(connection, reference)
        if standing.active == reference.version:
            return None
        return reference.version

    _decide(database, reference.name, ModelDecision.ACTIVATE, deciding, chosen)


def put_in_shadow(database: Database, reference: ModelReference, deciding: Deciding) -> None:
    """Have a version read what it would be asked about, for comparison alone.

    Raises
    ------
    NoSuchModel
        It was never installed.
    NotPossible
        The workers have refused it, or it is the one that is asked.
    """

    def chosen(connection: Connection, standing: Standing) -> str | None:
        _require_usable(connection, reference)
        if standing.active == reference.version:
            raise NotPossible(
                "it is the active version: activate another, roll back, or retire it first"
            )
        return None if reference.version in standing.shadows else reference.version

    _decide(database, reference.name, ModelDecision.SHADOW, deciding, chosen)


def retire(database: Database, reference: ModelReference, deciding: Deciding) -> None:
    """Have a version neither asked nor read in shadow any more.

    Raises
    ------
    NoSuchModel
        It was never installed.
    """

    def chosen(connection: Connection, standing: Standing) -> str | None:
        _require_known(connection, reference)
        inactive = standing.state_of(reference.version) is ModelState.INACTIVE
        return None if inactive else reference.version

    _decide(database, reference.name, ModelDecision.RETIRE, deciding, chosen)


def roll_back(database: Database, name: str, deciding: Deciding) -> ModelReference:
    """Have the version asked that was before; done again, it goes one further back.

    Raises
    ------
    NoSuchModel
        No version of this name was ever installed.
    NotPossible
        There was none before, or the workers have refused it.
    """

    def chosen(connection: Connection, standing: Standing) -> str:
        if connection.execute(select(model.c.name).where(model.c.name == name)).first() is None:
            raise NoSuchModel(f"there is no model {name}")
        if not standing.before:
            raise NotPossible(f"no other version of {name} was active before")
        before = standing.before[-1]
        _require_usable(connection, ModelReference(name=name, version=before))
        return before

    version = _decide(database, name, ModelDecision.ROLL_BACK, deciding, chosen)
    return ModelReference(name=name, version=version or "")


def _decide(
    database: Database,
    name: str,
    decision: ModelDecision,
    deciding: Deciding,
    chosen: Callable[[Connection, Standing], str | None],
) -> str | None:
    """Write a decision about the version that is chosen; ``None``: it is as decided already."""
    with database.transaction() as transaction:
        connection = transaction.connection
        version = chosen(connection, standing_of(connection, name))
        if version is None:
            return None
        connection.execute(
            insert(model_decision),
            {
                "model_name": name,
                "model_version": version,
                "decision": decision.value,
                "decided_at": deciding.at,
                "decided_by": deciding.by,
                "why": deciding.why,
            },
        )
        return version


def _require_known(connection: Connection, reference: ModelReference) -> None:
    of_name = select(model.c.version).where(model.c.name == reference.name)
    versions = connection.execute(of_name.order_by(model.c.registered_at)).scalars().all()
    if reference.version not in versions:
        there = f"; there are: {', '.join(versions)}" if versions else ""
        raise NoSuchModel(f"there is no model {reference.name}@{reference.version}{there}")


def _require_usable(connection: Connection, reference: ModelReference) -> None:
    _require_known(connection, reference)
    reason = connection.execute(
        select(refused_model.c.reason).where(
            refused_model.c.model_name == reference.name,
            refused_model.c.model_version == reference.version,
        )
    ).scalar()
    if reason is not None:
        raise NotPossible(f"the workers have refused it: {reason}")
