"""A request is read from the store, and answered with objects, pictures and a message."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import cv2
import numpy as np
import pytest
from pydicom.uid import ParametricMapStorage
from sqlalchemy import select, update

from imaging_store.instances import FileInstanceStore
from imaging_store.schema.ingest import conflict, instance, study
from imaging_store.schema.results import result_object
from inference_worker import kept_instances
from inference_worker.handlers import Worker
from inference_worker.prediction import Prediction
from message_contracts.inference import (
    InferenceCompleted,
    Urgency,
)
from message_contracts.study_selection import StudySelection
from service_runtime.database import Database
from service_runtime.telemetry import log
from tests.integration.inference_worker.requests_to_read import (
    NOON,
    RAMP,
    a_request,
    an_instance,
    answer_of,
    says,
    with_model,
)
from tests.readings import WEIGHTS_SHA256, a_model
from tests.synthetic_images import STUDY_INSTANCE_UID, part10, read


def test_a_heat_map_of_another_class_than_the_finding_says_so(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    each_says = ((0.45, 0.55, 0.0), (0.44, 0.0, 0.56))

    def predict(batch: Any) -> Sequence[Prediction]:
        return [Prediction(said, RAMP) for _, said in zip(batch, each_says, strict=True)]

    uids = ["2.25.103", "2.25.104"]
    for uid in uids:
        keep(an_instance(SOPInstanceUID=uid))

    asked = with_model(worker, predict=predict).on_inference_requested(a_request(*uids))
    answer = answer_of(database, asked)

    assert answer.probabilities[0].label == "Round"
    with database.reading() as connection:
        [key] = connection.execute(
            select(result_object.c.key).where(result_object.c.key.contains("/SC-"))
        ).scalars()
    assert "1.2.3 for Square, blended" in read(store.read(key)).DerivationDescription


@pytest.mark.parametrize(
    ("others", "held_bytes", "times"),
    [
        pytest.param((), 2**20, 1, id="the only one is held"),
        pytest.param((), 0, 2, id="a large one is read again"),
        pytest.param(("2.25.104",), 2**20, 2, id="of many none is held"),
    ],
)
def test_how_often_the_file_is_read_that_is_explained(
    *,
    others: Sequence[str],
    held_bytes: int,
    times: int,
    worker: Worker,
    keep: Callable[..., None],
    store: FileInstanceStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uids = ["2.25.103", *others]
    for uid in uids:
        keep(an_instance(SOPInstanceUID=uid))
    keys: list[str] = []
    before = store.read

    def counted(key: str) -> bytes:
        keys.append(key)
        return before(key)

    monkeypatch.setattr(store, "read", counted)
    monkeypatch.setattr(kept_instances, "MOST_HELD_BYTES", held_bytes)

    worker.on_inference_requested(a_request(*uids))

    assert max(keys.count(key) for key in keys) == times


def test_a_request_is_answered_with_finding_and_objects(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    keep(an_instance())

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceCompleted)
    assert [each.label for each in answer.probabilities] == ["Star", "Round", "Square"]
    assert answer.probabilities[0].probability == pytest.approx(0.7)
    assert not answer.uncertain
    assert answer.device_uid == "2.25.271828"
    assert answer.weights_sha256 == WEIGHTS_SHA256
    assert answer.heatmap_sop_instance_uid == "2.25.103"
    with database.reading() as connection:
        rows = connection.execute(select(result_object)).all()
    assert {row.sop_instance_uid for row in rows} == set(answer.result_sop_instance_uids)
    kept = {read(store.read(row.key)).Modality: read(store.read(row.key)) for row in rows}
    assert kept["OT"].SOPInstanceUID == answer.result_sop_instance_uids[0]
    assert kept["SR"].SOPInstanceUID == answer.result_sop_instance_uids[1]


def test_a_series_is_one_finding_with_the_slices_that_mattered(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    uids = [f"2.25.103.{number}" for number in range(1, 31)]
    for uid in uids:
        keep(an_instance(SOPInstanceUID=uid))
    with database.transaction() as transaction:
        for number, uid in enumerate(uids):
            transaction.connection.execute(
                update(instance)
                .where(instance.c.sop_instance_uid == uid)
                .values(instance_number=number)
            )
    seen: list[int] = []

    def predict(batch: Any) -> Sequence[Prediction]:
        places = range(len(seen), len(seen) + len(batch))
        seen.extend(places)
        return [
            Prediction((0.1, 0.2, 0.7) if each > 2 else (0.0, 0.1, 0.9), RAMP) for each in places
        ]

    reads = StudySelection(what="slices", every=2, aggregate="top_k_mean", top_k=12)
    reader = with_model(worker, description=a_model(reads=reads), predict=predict)

    answer = answer_of(database, reader.on_inference_requested(a_request(*reversed(uids))))

    assert isinstance(answer, InferenceCompleted)
    assert len(seen) == 15
    assert answer.heatmap_sop_instance_uid == uids[0]
    with database.reading() as connection:
        rows = connection.execute(select(result_object)).all()
    kept = [read(store.read(row.key)) for row in rows]
    captures = sorted(
        (each for each in kept if each.Modality == "OT"), key=lambda each: each.InstanceNumber
    )
    [report] = [each for each in kept if each.Modality == "SR"]
    assert len({each.SeriesInstanceUID for each in captures}) == 1
    assert [each.InstanceNumber for each in captures] == list(range(1, 10))
    assert [each.SourceImageSequence[0].ReferencedSOPInstanceUID for each in captures[:3]] == uids[
        :6:2
    ]
    assert answer.result_sop_instance_uids == tuple(
        each.SOPInstanceUID for each in (*captures, report)
    )
    [evidence] = report.CurrentRequestedProcedureEvidenceSequence
    assert len(evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 15


def test_urgent_pictures_are_asked_for_as_such(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    asked: list[tuple[str, bool]] = []

    def reader(study_instance_uid: str, urgent: bool) -> Callable[[Any], Sequence[Prediction]]:
        asked.append((study_instance_uid, urgent))
        return says(0.2, 0.1, 0.7)

    keep(an_instance())
    reading = with_model(worker, reader=reader)
    for urgency in Urgency:
        reading.on_inference_requested(a_request(urgency=urgency))

    assert asked == [(STUDY_INSTANCE_UID, False), (STUDY_INSTANCE_UID, True)]


def test_the_pictures_are_those_of_the_capture(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    keep(an_instance())

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    heatmap, source = (
        cv2.imdecode(np.frombuffer(store.read(key), np.uint8), cv2.IMREAD_COLOR)
        for key in (answer.heatmap_key, answer.source_key)
    )
    with database.reading() as connection:
        [key] = connection.execute(
            select(result_object.c.key).where(result_object.c.key.contains("/SC-"))
        ).scalars()
    capture = read(store.read(key))
    rows, columns = heatmap.shape[:2]
    np.testing.assert_array_equal(capture.pixel_array[:rows, :columns], heatmap[..., ::-1])
    assert source.shape == heatmap.shape
    assert not np.array_equal(source, heatmap)


PLACED = {
    "Modality": "CT",
    "FrameOfReferenceUID": "2.25.9",
    "ImagePositionPatient": [0, 0, 5],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.5],
}


@pytest.mark.parametrize(
    ("wanted", "attributes", "maps"), [(True, PLACED, 1), (False, PLACED, 0), (True, {}, 0)]
)
def test_a_map_is_made_where_it_is_wanted_and_the_images_say_where_they_lie(
    worker: Worker,
    keep: Callable[..., None],
    database: Database,
    wanted: bool,
    attributes: dict[str, Any],
    maps: int,
) -> None:
    keep(an_instance(**attributes))

    answer = answer_of(database, worker.on_inference_requested(a_request(parametric_map=wanted)))

    with database.reading() as connection:
        made = connection.execute(
            select(result_object).where(result_object.c.sop_class_uid == ParametricMapStorage)
        ).all()
    assert len(made) == maps
    assert len(answer.result_sop_instance_uids) == 2 + maps
    for row in made:
        found = read(worker.store.read(row.key))
        assert found.SOPInstanceUID == row.sop_instance_uid == answer.result_sop_instance_uids[-1]
        assert found.pixel_array.shape == (96, 80)


def test_below_the_threshold_the_finding_is_uncertain(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    keep(an_instance())
    unsure = with_model(worker, predict=says(0.3, 0.2, 0.5))

    answer = answer_of(database, unsure.on_inference_requested(a_request()))

    assert answer.uncertain
    assert answer.probabilities[0].label == "Star"
    assert answer.uncertain_below == 0.6


def test_reading_again_makes_the_same_objects_and_one_answer(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    keep(an_instance())
    first = answer_of(database, worker.on_inference_requested(a_request()))
    folder = store.path(first.heatmap_key).parent
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    later = replace(worker, now=lambda: datetime(2027, 1, 1, tzinfo=UTC))
    again = answer_of(database, later.on_inference_requested(a_request()))

    assert again == first
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert {name.partition("-")[0] for name in before} == {"SC", "SR", "heatmap", "source"}
    assert len(before) == 4


def test_what_a_second_attempt_makes_otherwise_takes_nothing_of_the_firsts_place(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    keep(an_instance())
    first = answer_of(database, worker.on_inference_requested(a_request()))
    pictures = [store.read(key) for key in (first.heatmap_key, first.source_key)]

    second = with_model(worker, predict=says(0.3, 0.1, 0.6))
    again = answer_of(database, second.on_inference_requested(a_request()))

    assert again == first
    assert [store.read(key) for key in (first.heatmap_key, first.source_key)] == pictures
    with database.reading() as connection:
        rows = connection.execute(select(result_object)).all()
    assert {row.sop_instance_uid for row in rows} == set(first.result_sop_instance_uids)
    for row in rows:
        assert hashlib.sha256(store.read(row.key)).hexdigest() == row.sha256


def test_another_version_of_the_study_has_results_of_its_own(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    keep(an_instance())
    uids = set()
    for version in (1, 2):
        with database.transaction() as transaction:
            worker.on_inference_requested(a_request(case_version=version))(transaction)
    with database.reading() as connection:
        uids = set(connection.execute(select(result_object.c.sop_instance_uid)).scalars())

    assert len(uids) == 4


def test_an_instance_that_cannot_be_read_does_not_spoil_the_others(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    broken = an_instance(SOPInstanceUID="2.25.104")
    keep(broken, part10(broken)[:-500])
    keep(an_instance())

    answer = answer_of(database, worker.on_inference_requested(a_request("2.25.104", "2.25.103")))

    assert isinstance(answer, InferenceCompleted)
    assert answer.heatmap_sop_instance_uid == "2.25.103"
    [missing] = answer.not_read
    assert missing.sop_instance_uids == ("2.25.104",)
    assert not missing.is_refusal
    assert answer.given is not None
    assert answer.given.picture_count == 1
    with database.reading() as connection:
        key = connection.execute(
            select(result_object.c.key).where(result_object.c.key.contains("/SR-"))
        ).scalar_one()
    assert b"does not rest on all instances. Not read, or not whole: 1 (1 unrea" in store.read(key)


def test_results_of_a_contradicted_study_carry_the_patient_it_is_known_by(
    worker: Worker, database: Database, keep: Callable[..., None], store: FileInstanceStore
) -> None:
    keep(an_instance(PatientID="WRONG", PatientName="Wrong^Patient", PatientAge="042Y"))
    with database.transaction() as transaction:
        connection = transaction.connection
        connection.execute(update(study).values(patient_id="P1", patient_name="Doe^Jane"))
        connection.execute(
            conflict.insert(),
            {
                "id": UUID(int=7),
                "study_instance_uid": STUDY_INSTANCE_UID,
                "kind": "identity",
                "sop_instance_uid": "2.25.103",
                "digest": "0" * 32,
                "known": {},
                "claimed": {},
                "differing": ["PatientID"],
                "holds": True,
                "opened_at": NOON,
            },
        )

    answer_of(database, worker.on_inference_requested(a_request()))

    with database.reading() as connection:
        rows = connection.execute(select(result_object)).all()
    for row in rows:
        made = read(store.read(row.key))
        assert (made.PatientID, str(made.PatientName)) == ("P1", "Doe^Jane")
        assert "PatientAge" not in made


def test_nothing_of_the_patient_is_in_the_answer_or_the_log(
    worker: Worker,
    keep: Callable[..., None],
    database: Database,
) -> None:
    logged = io.StringIO()
    log.configure("inference_worker", stream=logged)
    secrets = ("Zweifel^Zora", "MRN-4711", "ACC-0815", "19610203")
    name, patient_id, accession_number, birth_date = secrets
    patient = {
        "PatientName": name,
        "PatientID": patient_id,
        "AccessionNumber": accession_number,
        "PatientBirthDate": birth_date,
    }
    keep(an_instance(**patient))
    broken = an_instance(SOPInstanceUID="2.25.104", **patient)
    keep(broken, part10(broken)[:-500])

    answer = answer_of(database, worker.on_inference_requested(a_request("2.25.103", "2.25.104")))

    told = answer.model_dump_json() + logged.getvalue()
    assert "inference.completed" in told
    assert [secret for secret in secrets if secret in told] == []
