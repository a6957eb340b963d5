"""Requests as the workflow sends them, models that need no network, and what is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from pydicom import Dataset
from sqlalchemy import select

from inference_worker.handlers import Worker
from inference_worker.model_holder import ModelUnavailable
from inference_worker.prediction import Prediction
from inference_worker.results import LoadedModel
from message_contracts import catalogue
from message_contracts.envelope import Envelope
from message_contracts.inference import (
    InferenceRequested,
    ModelReference,
    Urgency,
)
from service_runtime.database import Database
from service_runtime.messaging.tables import message
from tests.synthetic_images import STUDY_INSTANCE_UID, a_gradient, an_image

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
CASE = UUID(int=7)
SHAPES = ModelReference(name="shapes", version="1.2.3")
RAMP = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)


class Held(dict[ModelReference, LoadedModel]):
    """Models that are there from the beginning."""

    def of(self, reference: ModelReference) -> LoadedModel:
        """Give it, or refuse as a worker's holder does."""
        if reference not in self:
            raise ModelUnavailable("It is not here.")
        return self[reference]


def says(*probabilities: float) -> Callable[[Any], Sequence[Prediction]]:
    """Return a network that always says the same; its heat map is a ramp."""
    return lambda batch: [Prediction(probabilities, RAMP) for _ in batch]


def with_model(worker: Worker, **changes: Any) -> Worker:
    """Return a worker whose one model is changed so."""
    return replace(worker, models=Held({SHAPES: replace(worker.models.of(SHAPES), **changes)}))


def a_request(
    *uids: str,
    model: ModelReference = SHAPES,
    case_version: int = 1,
    shadow: bool = False,
    urgency: Urgency = Urgency.ROUTINE,
    parametric_map: bool = False,
) -> Envelope:
    """Return what the workflow sends, by default for the one instance that tests keep."""
    return Envelope.of(
        InferenceRequested(
            case_id=CASE,
            case_version=case_version,
            study_instance_uid=STUDY_INSTANCE_UID,
            model=model,
            sop_instance_uids=uids or ("2.25.103",),
            shadow=shadow,
            urgency=urgency,
            parametric_map=parametric_map,
        ),
        source="workflow_engine",
        time=NOON,
        id=UUID(int=1),
    )


def answer_of(database: Database, effect: Callable[[Any], None]) -> Any:
    """Run an effect and return the message that it sent."""
    with database.transaction() as transaction:
        effect(transaction)
    with database.reading() as connection:
        [body] = connection.execute(select(message.c.body)).scalars().all()
    answer = catalogue.decode(body)
    assert answer.causation_id == UUID(int=1)
    return answer.body


def an_instance(**attributes: Any) -> Dataset:
    """Return a radiograph of a gradient."""
    return an_image(a_gradient(96, 80).astype("u2"), **attributes)


def sent(database: Database, kind: type[Any]) -> list[Any]:
    """Return the messages of a kind that were sent."""
    with database.reading() as connection:
        bodies = connection.execute(select(message.c.body)).scalars().all()
    return [each.body for each in map(catalogue.decode, bodies) if isinstance(each.body, kind)]
