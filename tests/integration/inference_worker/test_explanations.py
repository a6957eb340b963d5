"""A class that somebody asks for is explained beside the results, which stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from sqlalchemy import insert, select, update

from imaging_store.instances import FileInstanceStore, open_instance_store
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.results import explanation, result_object
from imaging_store.schema.workflow import cases, inference_result
from inference_worker.explanations import Explainer
from inference_worker.prediction import Prediction
from inference_worker.results import LoadedModel
from message_contracts.envelope import Envelope
from message_contracts.inference import (
    ClassProbability,
    ExplanationRequested,
    InferenceCompleted,
    ModelReference,
)
from service_runtime.database import Database
from service_runtime.messaging.tables import message
from tests.readings import WEIGHTS_SHA256, a_code, a_model
from tests.synthetic_images import STUDY_INSTANCE_UID, a_gradient, an_image, part10, read
from tests.workflow_journey import _a_study_row, _an_instance_row

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
CASE = UUID(int=7)
SHAPES = ModelReference(name="shapes", version="1.2.3")


class Held(dict[ModelReference, LoadedModel]):
    def of(self, reference: ModelReference) -> LoadedModel:
        return self[reference]


def explain(study_instance_uid: str, batch: Any, place: int) -> Sequence[Prediction]:
    """Explain each class by another cell."""
    assert study_instance_uid == STUDY_INSTANCE_UID
    assert batch.shape == (1, 32, 32)
    cam = np.zeros((8, 8), dtype=np.float32)
    cam[place, 2 * place] = 1
    return [Prediction((0.2, 0.1, 0.7), cam)]


def a_reading() -> InferenceCompleted:
    said = (("Star", 0.7), ("Round", 0.2), ("Square", 0.1))
    return InferenceCompleted(
        case_id=CASE,
        case_version=1,
        study_instance_uid=STUDY_INSTANCE_UID,
        model=SHAPES,
        device_uid="2.25.271828",
        weights_sha256=WEIGHTS_SHA256,
        uncertain_below=0.6,
        uncertain=False,
        probabilities=tuple(
            ClassProbability(label=label, code=a_code(label), probability=probability)
            for label, probability in said
        ),
        heatmap_sop_instance_uid="2.25.103",
        result_sop_instance_uids=("2.25.901",),
        heatmap_key="results/7/heatmap.png",
        source_key="results/7/source.png",
    )


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    opened = Database(sqlite_url)
    source = an_image(a_gradient(96, 80).astype("u2"))
    with opened.transaction() as transaction:
        connection = transaction.connection
        connection.execute(insert(study), _a_study_row(STUDY_INSTANCE_UID))
        row = _an_instance_row(STUDY_INSTANCE_UID, str(source.SOPInstanceUID), 1)
        connection.execute(insert(instance), {**row, "modality": "CR", "key": "instances/1.dcm"})
        connection.execute(
            insert(cases),
            {
                "id": CASE,
                "study_instance_uid": STUDY_INSTANCE_UID,
                "status": "REPORT_READY",
                "version": 1,
                "revision": 3,
                "on_hold": False,
                "opened_at": NOON,
                "changed_at": NOON,
            },
        )
        connection.execute(
            insert(inference_result),
            {
                "case_id": CASE,
                "case_version": 1,
                "model_name": "shapes",
                "model_version": "1.2.3",
                "requested_at": NOON,
                "completed": a_reading().model_dump(mode="json"),
            },
        )
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    opened = open_instance_store(f"file:{tmp_path / 'store'}")
    opened.put_artifact("instances/1.dcm", part10(an_image(a_gradient(96, 80).astype("u2"))))
    return opened


@pytest.fixture
def explainer(database: Database, store: FileInstanceStore) -> Explainer:
    model = LoadedModel(a_model(), WEIGHTS_SHA256, lambda _batch: [], explain=explain)
    return Explainer(database, store, Held({SHAPES: model}), ZoneInfo("UTC"), lambda: NOON)


def a_request(label: str = "Round", version: int = 1) -> Envelope:
    body = ExplanationRequested(case_id=CASE, case_version=version, model=SHAPES, label=label)
    return Envelope.of(body, source="admin_api", time=datetime.now(UTC))


def answered(database: Database, effect: Callable[[Any], None]) -> Any:
    with database.transaction() as transaction:
        effect(transaction)
    with database.reading() as connection:
        return connection.execute(select(explanation)).one()


def test_it_is_a_capture_of_the_study_that_names_the_class(
    explainer: Explainer, database: Database, store: FileInstanceStore
) -> None:
    row = answered(database, explainer.on_explanation_requested(a_request()))

    made = read(store.read(row.key))
    assert (row.label, row.failure, row.failures) == ("Round", None, 0)
    assert made.SOPInstanceUID == row.sop_instance_uid
    assert made.StudyInstanceUID == STUDY_INSTANCE_UID
    assert "for Round" in made.DerivationDescription
    assert made.SeriesDescription.startswith("AI - not for primary diagnosis")
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == "2.25.103"
    assert store.read(row.picture_key).startswith(b"\x89PNG")


def test_asked_for_again_it_is_the_same_object(
    explainer: Explainer, database: Database, store: FileInstanceStore
) -> None:
    first = answered(database, explainer.on_explanation_requested(a_request()))
    content = store.read(first.key)

    again = answered(database, explainer.on_explanation_requested(a_request()))

    assert (again.sop_instance_uid, store.read(again.key)) == (first.sop_instance_uid, content)


def test_another_class_is_another_object(
    explainer: Explainer, database: Database, store: FileInstanceStore
) -> None:
    for label in ("Round", "Square", "Star"):
        with database.transaction() as transaction:
            explainer.on_explanation_requested(a_request(label))(transaction)

    with database.reading() as connection:
        rows = connection.execute(select(explanation)).all()
    made = [read(store.read(row.key)) for row in rows]
    assert len({each.SOPInstanceUID for each in made}) == 3
    assert len({each.SeriesInstanceUID for each in made}) == 1
    assert len({each.PixelData for each in made}) == 3


def test_nothing_else_changes(explainer: Explainer, database: Database) -> None:
    def all_else() -> list[Any]:
        with database.reading() as connection:
            return [
                connection.execute(select(table)).all()
                for table in (cases, inference_result, result_object, message)
            ]

    before = all_else()
    answered(database, explainer.on_explanation_requested(a_request()))

    assert all_else() == before


def purge(explainer: Explainer) -> Explainer:
    with explainer.database.transaction() as transaction:
        transaction.connection.execute(update(instance).values(purged_at=NOON))
    return explainer


def reload(explainer: Explainer, **changes: Any) -> Explainer:
    [model] = explainer.models.values()  # type: ignore[attr-defined]
    return replace(explainer, models=Held({SHAPES: replace(model, **changes)}))


@pytest.mark.parametrize(
    ("change", "request_of", "reason"),
    [
        (lambda e: e, a_request("Triangle"), "no such class, but Round, Square, Star"),
        (lambda e: e, a_request(version=2), "has not read this version"),
        (lambda e: reload(e, weights_sha256="0" * 64), a_request(), "not installed any more"),
        (lambda e: reload(e, explain=None), a_request(), "most probable class only"),
        (purge, a_request(), "not kept any more"),
    ],
    ids=["another class", "not read", "other weights", "a model that cannot", "purged"],
)
def test_what_cannot_be_explained_says_why(
    explainer: Explainer,
    database: Database,
    change: Callable[[Explainer], Explainer],
    request_of: Envelope,
    reason: str,
) -> None:
    row = answered(database, change(explainer).on_explanation_requested(request_of))

    assert reason in row.failure
    assert (row.sop_instance_uid, row.failures) == (None, 1)


def test_what_failed_may_succeed_later(explainer: Explainer, database: Database) -> None:
    answered(database, explainer.on_exhausted(a_request(), "it hung"))

    row = answered(database, explainer.on_explanation_requested(a_request()))

    assert row.sop_instance_uid is not None
    assert (row.failure, row.failures) == (None, 1)
