"""Which version of each model is asked, and which reads in its shadow.

The worker's code writes what is installed, the admin's what people decided about it. What follows
from both is worked out here, the same for whoever asks.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select

from imaging_store.schema.administration import model_decision
from imaging_store.schema.results import model
from message_contracts.inference import ModelReference


class ModelState(StrEnum):
    """What a registered version does."""

    ACTIVE = "active"
    """It is asked about the studies that its rule fits; one version of each name at most."""
    SHADOW = "shadow"
    """It reads what it would be asked about; nobody sees that but who compares."""
    INACTIVE = "inactive"


class ModelDecision(StrEnum):
    """What a person may decide about a version."""

    ADD = "add"
    ACTIVATE = "activate"
    SHADOW = "shadow"
    RETIRE = "retire"
    """Neither is it asked any more, nor does it read in shadow mode."""
    ROLL_BACK = "roll_back"
    """Back to this version, which was active before the one that is."""


@dataclass(frozen=True)
class Decided:
    """One decision, in the order in which they were made."""

    model: ModelReference
    decision: ModelDecision
    at: datetime
    by: str
    why: str


@dataclass
class Standing:
    """What the decisions about one model name have led to."""

    active: str | None
    before: list[str] = field(default_factory=list)
    """Versions that were active before, the last one last."""
    shadows: set[str] = field(default_factory=set)

    def state_of(self, version: str) -> ModelState:
        """Return what a version does."""
        if version == self.active:
            return ModelState.ACTIVE
        return ModelState.SHADOW if version in self.shadows else ModelState.INACTIVE

    def decide(self, version: str, decision: ModelDecision) -> None:
        """Take a decision in."""
        if decision is ModelDecision.ADD:
            return
        self.shadows.discard(version)
        if decision is ModelDecision.ACTIVATE:
            self._leave(self.active if self.active != version else None)
            self.active = version
        elif decision is ModelDecision.ROLL_BACK:
            while self.before and self.before.pop() != version:
                pass
            self.active = version
        else:
            if decision is ModelDecision.SHADOW:
                self.shadows.add(version)
            if self.active == version:
                self._leave(version)
                self.active = None

    def _leave(self, version: str | None) -> None:
        if version is not None:
            self.before.append(version)


@dataclass(frozen=True)
class RegisteredModel:
    """A version that was installed once, and what it does now."""

    reference: ModelReference
    state: ModelState
    device_uid: str
    weights_sha256: str
    description: dict[str, Any]
    """A ModelDescription, perhaps as an earlier release wrote it."""
    registered_at: datetime
    last_decision: Decided | None
    loaded_at: datetime | None = None
    """When a worker has loaded its network last; ``None`` where none has yet."""


def registered_models(connection: Connection) -> tuple[RegisteredModel, ...]:
    """Return every version that was ever installed, by name, and the newest first."""
    rows = connection.execute(select(model)).all()
    decisions = decided(connection)
    standings = standings_of(rows, decisions)
    last = {each.model: each for each in decisions}
    found = []
    for row in rows:
        reference = ModelReference(name=row.name, version=row.version)
        found.append(
            RegisteredModel(
                reference=reference,
                state=standings[row.name].state_of(row.version),
                device_uid=row.device_uid,
                weights_sha256=row.weights_sha256,
                description=row.description,
                registered_at=row.registered_at,
                last_decision=last.get(reference),
                loaded_at=row.loaded_at,
            )
        )
    found.sort(key=lambda each: version_key(each.reference.version), reverse=True)
    return tuple(sorted(found, key=lambda each: each.reference.name))


def decided(connection: Connection) -> tuple[Decided, ...]:
    """Return what people decided about models, the oldest first."""
    rows = connection.execute(select(model_decision).order_by(model_decision.c.sequence))
    return tuple(
        Decided(
            model=ModelReference(name=row.model_name, version=row.model_version),
            decision=ModelDecision(row.decision),
            at=row.decided_at,
            by=row.decided_by,
            why=row.why,
        )
        for row in rows
    )


def standings_of(
    rows: Iterable[Row[Any]], decisions: Iterable[Decided]
) -> defaultdict[str, Standing]:
    """Return by name what rows of ``model``, and then the decisions, have led to.

    The first version of a name is active although nobody has decided so.
    """
    standings: defaultdict[str, Standing] = defaultdict(lambda: Standing(None))
    for row in rows:
        if row.retired_at is None:
            standings[row.name].active = row.version
    for each in decisions:
        standings[each.model.name].decide(each.model.version, each.decision)
    return standings


def standing_of(connection: Connection, name: str) -> Standing:
    """Return what the decisions about one name have led to."""
    rows = connection.execute(select(model).where(model.c.name == name))
    return standings_of(rows, (each for each in decided(connection) if each.model.name == name))[
        name
    ]


def version_key(version: str) -> tuple[int, ...]:
    """Return what sorts versions ``major.minor.patch`` by age."""
    return tuple(int(number) for number in version.split("."))


def weights_key(sha256: str) -> str:
    """Return where the instance store keeps a file of a model folder, whatever it is called."""
    return f"models/{sha256}"
