"""Ask a worker to explain a class of a reading, and wait for it."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from admin_api import case_queries, explanations
from imaging_store.instances import open_instance_store
from imaging_store.schema.workflow import inference_result
from message_contracts.identifiers import case_id_of
from message_contracts.inference import ExplanationRequested, InferenceCompleted
from service_runtime.database import Database
from service_runtime.errors import PermanentError
from service_runtime.settings import StoreSettings, load

_LOOK_S = 0.2


class NoExplanation(PermanentError):
    """There is nothing to explain, or the worker did not; the text says why."""


@dataclass(frozen=True)
class Wish:
    """What is to be explained."""

    study_instance_uid: str
    label: str
    model: str | None
    """Its name; ``None``: the one that has such a class."""
    wait_s: float


@dataclass(frozen=True)
class Made:
    """Where the store keeps it."""

    sop_instance_uid: str
    key: str
    picture_key: str

    def content(self, *, is_picture: bool) -> bytes:
        """Return the PNG, or the Part 10 file."""
        store = open_instance_store(load(StoreSettings).store)
        return store.read(self.picture_key if is_picture else self.key)


def explain(database: Database, wish: Wish) -> Made:
    """Ask, and wait until it is answered.

    Raises
    ------
    NoExplanation
        There is none, and the text says why.
    """
    request = _request(database, wish)
    with database.reading() as connection:
        before = explanations.find(connection, request)
    failures_known = 0 if before is None else before.failures
    explanations.ask(database, request, datetime.now(UTC), failures_known)
    until = time.monotonic() + wish.wait_s
    while True:
        with database.reading() as connection:
            row = explanations.find(connection, request)
        if row is not None and row.sop_instance_uid is not None:
            return Made(row.sop_instance_uid, row.key, row.picture_key)
        if row is not None and row.failures > failures_known:
            raise NoExplanation(row.failure)
        if time.monotonic() > until:
            raise NoExplanation(
                f"no worker has answered within {wish.wait_s:g} s: ask again, the request waits"
            )
        time.sleep(_LOOK_S)


def _request(database: Database, wish: Wish) -> ExplanationRequested:
    with database.reading() as connection:
        row = case_queries.find(connection, case_id_of(wish.study_instance_uid))
        if row is None:
            raise NoExplanation("there is no case of this study")
        version = case_queries.version_shown(row)
        bodies = connection.execute(
            select(inference_result.c.completed).where(
                inference_result.c.case_id == row.id,
                inference_result.c.case_version == version,
                inference_result.c.completed.is_not(None),
            )
        ).scalars()
        readings = [InferenceCompleted.model_validate(body) for body in bodies]
    named = [each for each in readings if wish.model in {None, each.model.name}]
    fitting = [each for each in named if wish.label in {said.label for said in each.probabilities}]
    if not fitting:
        labels = sorted({said.label for each in named for said in each.probabilities})
        raise NoExplanation(
            f"--class: one of {', '.join(labels)}" if labels else "no such model has read the study"
        )
    if len(fitting) > 1:
        names = ", ".join(sorted(each.model.name for each in fitting))
        raise NoExplanation(f"--model: several have this class: {names}")
    return ExplanationRequested(
        case_id=row.id, case_version=version, model=fitting[0].model, label=wish.label
    )
