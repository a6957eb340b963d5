"""A request is read from the store, and answered with objects, pictures and a message."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage
from sqlalchemy import select, update

from imaging_store.instances import FileInstanceStore, open_instance_store
from imaging_store.schema.ingest import conflict, instance, study
from imaging_store.schema.results import result_object, shadow_result
from inference_worker.cell_grid import CellGrid
from inference_worker.forward_process import USUAL_LIMITS, Fault, ForwardProcess, ModelFault
from inference_worker.handlers import Worker
from inference_worker.model_folder import ModelFolder
from inference_worker.model_holder import ModelUnavailable
from inference_worker.results import LoadedModel
from inference_worker.served_model import MOST_FAULTS, ModelSetAside, ServedModel
from message_contracts import catalogue
from message_contracts.envelope import Envelope
from message_contracts.inference import (
    InferenceCompleted,
    InferenceFailed,
    InferenceRequested,
    ModelReference,
    Urgency,
)
from message_contracts.study_selection import StudySelection
from message_contracts.topology import INFERENCE_ROUTINE, RetryPolicy
from service_runtime.database import Database
from service_runtime.errors import TransientError
from service_runtime.messaging import dead_letters, outbox
from service_runtime.messaging.consumer import Handling
from service_runtime.messaging.embedded import EmbeddedConsumer
from service_runtime.messaging.tables import message
from service_runtime.telemetry import log
from tests.readings import WEIGHTS_SHA256, a_model
from tests.synthetic_images import STUDY_INSTANCE_UID, a_gradient, an_image, part10, read

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
CASE = UUID(int=7)
SHAPES = ModelReference(name="shapes", version="1.2.3")
RAMP = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)


@dataclass(frozen=True)
class Seen:
    probabilities: tuple[float, ...]
    cam: npt.NDArray[np.float32]
    refusal: str | None = None
    grid: CellGrid | None = None
    distance: float | None = None


class Held(dict[ModelReference, LoadedModel]):
    """Models that are there from the beginning."""

    def of(self, reference: ModelReference) -> LoadedModel:
        if reference not in self:
            raise ModelUnavailable("It is not here.")
        return self[reference]


def says(*probabilities: float) -> Callable[[Any], Sequence[Seen]]:
    """Return a network that always says the same; its heat map is a ramp."""
    return lambda batch: [Seen(probabilities, RAMP) for _ in batch]


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    opened = Database(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    return open_instance_store(f"file:{tmp_path / 'store'}")


@pytest.fixture
def worker(database: Database, store: FileInstanceStore) -> Worker:
    model = LoadedModel(a_model(), WEIGHTS_SHA256, says(0.2, 0.1, 0.7))
    return Worker(database, store, Held({SHAPES: model}), ZoneInfo("UTC"), lambda: NOON)


@pytest.fixture
def keep(database: Database, store: FileInstanceStore) -> Callable[..., None]:
    """Give what receives instances: each is kept and indexed."""
    with database.transaction() as transaction:
        texts = (column.name for column in study.c if column.name.endswith(("_id", "_name")))
        transaction.connection.execute(
            study.insert(),
            {
                **dict.fromkeys(texts, ""),
                "study_instance_uid": STUDY_INSTANCE_UID,
                "patient_birth_date": "",
                "patient_sex": "",
                "accession_number": "",
                "study_description": "",
                "started": "",
                "opened_at": NOON,
                "version": 1,
            },
        )

    def keep_it(dataset: Dataset, content: bytes | None = None) -> None:
        uid = str(dataset.SOPInstanceUID)
        store.put_artifact(f"instances/{uid}.dcm", part10(dataset) if content is None else content)
        with database.transaction() as transaction:
            transaction.connection.execute(
                instance.insert(),
                {
                    "sop_instance_uid": uid,
                    "study_instance_uid": STUDY_INSTANCE_UID,
                    "series_instance_uid": str(dataset.SeriesInstanceUID),
                    "sop_class_uid": str(dataset.SOPClassUID),
                    "transfer_syntax_uid": str(dataset.file_meta.TransferSyntaxUID),
                    "modality": "CR",
                    "body_part_examined": "",
                    "view_position": "",
                    "laterality": "",
                    "image_type": [],
                    "number_of_frames": 1,
                    "makes_version": True,
                    "study_version": 1,
                    "calling_ae_title": "TEST",
                    "called_ae_title": "TEST",
                    "key": f"instances/{uid}.dcm",
                    "size_bytes": 1,
                    "digest": "0" * 32,
                    "received_at": NOON,
                },
            )

    return keep_it


def a_request(
    *uids: str,
    model: ModelReference = SHAPES,
    case_version: int = 1,
    shadow: bool = False,
    urgency: Urgency = Urgency.ROUTINE,
    parametric_map: bool = False,
) -> Envelope:
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
    return an_image(a_gradient(96, 80).astype("u2"), **attributes)


def test_a_heat_map_of_another_class_than_the_finding_says_so(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    each_says = ((0.45, 0.55, 0.0), (0.44, 0.0, 0.56))

    def predict(batch: Any) -> Sequence[Seen]:
        return [Seen(said, RAMP) for _, said in zip(batch, each_says, strict=True)]

    held = Held({SHAPES: LoadedModel(a_model(), WEIGHTS_SHA256, predict)})
    uids = ["2.25.103", "2.25.104"]
    for uid in uids:
        keep(an_instance(SOPInstanceUID=uid))

    asked = replace(worker, models=held).on_inference_requested(a_request(*uids))
    answer = answer_of(database, asked)

    assert answer.probabilities[0].label == "Round"
    with database.reading() as connection:
        [key] = connection.execute(
            select(result_object.c.key).where(result_object.c.key.contains("/SC-"))
        ).scalars()
    assert "1.2.3 for Square, blended" in read(store.read(key)).DerivationDescription


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

    def predict(batch: Any) -> Sequence[Seen]:
        places = range(len(seen), len(seen) + len(batch))
        seen.extend(places)
        return [Seen((0.1, 0.2, 0.7) if each > 2 else (0.0, 0.1, 0.9), RAMP) for each in places]

    reads = StudySelection(what="slices", every=2, aggregate="top_k_mean", top_k=12)
    model = replace(worker.models.of(SHAPES), description=a_model(reads=reads), predict=predict)
    reader = replace(worker, models=Held({SHAPES: model}))

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


def test_a_model_that_was_set_aside_is_a_dead_letter_with_the_reason(
    worker: Worker, keep: Callable[..., None]
) -> None:
    def predict(_batch: Any) -> Sequence[Seen]:
        raise ModelSetAside("The model is set aside: 3 times in a row it hung.")

    keep(an_instance())
    model = replace(worker.models.of(SHAPES), predict=predict)

    with pytest.raises(ModelSetAside, match="3 times in a row"):
        replace(worker, models=Held({SHAPES: model})).on_inference_requested(a_request())


def test_a_model_that_gives_no_answer_is_asked_again(
    worker: Worker, keep: Callable[..., None]
) -> None:
    def predict(_batch: Any) -> Sequence[Seen]:
        raise ModelFault(Fault.HANGS, "gave no answer within 60 s")

    keep(an_instance())
    model = replace(worker.models.of(SHAPES), predict=predict)

    with pytest.raises(TransientError):
        replace(worker, models=Held({SHAPES: model})).on_inference_requested(a_request())


def test_a_blank_picture_is_refused_and_that_is_the_answer(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    keep(an_image(np.full((96, 80), 9, "u2")))

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)
    assert answer.is_refusal
    assert "blank" in answer.reason


def test_urgent_pictures_are_asked_for_as_such(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    asked: list[tuple[str, bool]] = []

    def reader(study_instance_uid: str, urgent: bool) -> Callable[[Any], Sequence[Seen]]:
        asked.append((study_instance_uid, urgent))
        return says(0.2, 0.1, 0.7)

    keep(an_instance())
    model = replace(worker.models.of(SHAPES), reader=reader)
    reading = replace(worker, models=Held({SHAPES: model}))
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
    unsure = replace(worker.models[SHAPES], predict=says(0.3, 0.2, 0.5))

    answer = answer_of(
        database, replace(worker, models=Held({SHAPES: unsure})).on_inference_requested(a_request())
    )

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

    otherwise = replace(worker.models.of(SHAPES), predict=says(0.3, 0.1, 0.6))
    second = replace(worker, models=Held({SHAPES: otherwise}))
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


def test_truncated_pixels_are_a_failure_that_a_person_understands(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    keep(an_instance(), part10(an_instance())[:-500])

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)
    assert answer.reason.startswith("The instance cannot be read: the pixel data is truncated")


def test_a_request_for_nothing_that_is_kept_is_a_failure(
    worker: Worker, database: Database
) -> None:
    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)
    assert answer.reason == "None of the instances is in the store."


def test_a_file_that_is_gone_is_a_failure(
    worker: Worker, keep: Callable[..., None], database: Database, store: FileInstanceStore
) -> None:
    keep(an_instance())
    store.path("instances/2.25.103.dcm").unlink()

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)
    assert "not in the store" in answer.reason


def test_what_is_left_of_a_purged_study_does_not_pass_for_the_study(
    worker: Worker, database: Database, keep: Callable[..., None]
) -> None:
    late, early = an_instance(), an_instance(SOPInstanceUID="1.2.3.9")
    keep(late)
    keep(early)
    with database.transaction() as transaction:
        transaction.connection.execute(
            update(instance).where(instance.c.sop_instance_uid == "1.2.3.9").values(purged_at=NOON)
        )

    effect = worker.on_inference_requested(a_request("1.2.3.9", str(late.SOPInstanceUID)))

    answer = answer_of(database, effect)
    assert isinstance(answer, InferenceFailed)
    assert "1 of its 2 instances are not kept any more" in answer.reason


def test_an_excluded_instance_is_not_read(
    worker: Worker, database: Database, keep: Callable[..., None]
) -> None:
    keep(an_instance())
    with database.transaction() as transaction:
        transaction.connection.execute(update(instance).values(excluded_at=NOON))

    answer = answer_of(database, worker.on_inference_requested(a_request()))

    assert isinstance(answer, InferenceFailed)


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


def test_a_model_that_is_not_there_is_a_dead_letter_with_the_reason(worker: Worker) -> None:
    forms = ModelReference(name="forms", version="2.0.0")

    with pytest.raises(ModelUnavailable, match=r"It is not here\."):
        worker.on_inference_requested(a_request(model=forms))


def shadows_of(database: Database) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(select(shadow_result)))


def test_a_shadow_reading_is_recorded_and_nothing_else(
    worker: Worker,
    database: Database,
    store: FileInstanceStore,
    keep: Callable[..., None],
) -> None:
    dataset = an_instance()
    keep(dataset)
    before = sorted(path for path in store.root.rglob("*") if path.is_file())
    request = a_request(str(dataset.SOPInstanceUID), shadow=True)

    effect = worker.on_inference_requested(request)
    for _ in range(2):
        with database.transaction() as transaction:
            effect(transaction)

    [row] = shadows_of(database)
    assert (row.label, row.uncertain, row.failure) == (a_model().labels[2], False, None)
    assert list(row.probabilities.values()) == pytest.approx([0.2, 0.1, 0.7])
    with database.reading() as connection:
        assert connection.execute(select(result_object)).all() == []
        assert connection.execute(select(message)).all() == []
    assert sorted(path for path in store.root.rglob("*") if path.is_file()) == before


def test_a_shadow_that_fails_tells_nobody(worker: Worker, database: Database) -> None:
    request = a_request(shadow=True)

    for effect in (worker.on_inference_requested(request), worker.on_exhausted(request, "away")):
        with database.transaction() as transaction:
            effect(transaction)

    [row] = shadows_of(database)
    assert row.label is None
    assert row.failure == "The model could not be run: away"
    with database.reading() as connection:
        assert connection.execute(select(message)).all() == []


def test_when_tries_are_used_up_the_case_hears_it(worker: Worker, database: Database) -> None:
    answer = answer_of(database, worker.on_exhausted(a_request(), "it stopped 10 times"))

    assert isinstance(answer, InferenceFailed)
    assert answer.reason == "The model could not be run: it stopped 10 times"


def test_a_request_that_fails_otherwise_when_it_is_replayed_is_answered_anew(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    keep(an_image(np.full((96, 80), 9, "u2")))

    failing = [worker.on_exhausted(a_request(), "it stopped") for _ in range(2)]
    for effect in (*failing, worker.on_inference_requested(a_request())):
        with database.transaction() as transaction:
            effect(transaction)

    stopped, blank = sorted(sent(database, InferenceFailed), key=lambda each: each.is_refusal)
    assert stopped.reason == "The model could not be run: it stopped"
    assert "blank" in blank.reason


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


def sent(database: Database, kind: type[Any]) -> list[Any]:
    with database.reading() as connection:
        bodies = connection.execute(select(message.c.body)).scalars().all()
    return [each.body for each in map(catalogue.decode, bodies) if isinstance(each.body, kind)]


def consume_until(database: Database, worker: Worker, is_done: Callable[[], bool]) -> None:
    handling = Handling(
        worker.on_inference_requested,
        on_exhausted=worker.on_exhausted,
        retry=RetryPolicy(first_delay_s=0.01, multiplier=1, cap_s=0.01, attempts=3),
    )
    consumer = EmbeddedConsumer(
        database, {INFERENCE_ROUTINE: handling}, prefetch=1, handler_deadline_s=60
    )
    stop = threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,))
    thread.start()
    try:
        until = time.monotonic() + 60
        while not is_done():
            assert time.monotonic() < until
            stop.wait(0.02)
    finally:
        stop.set()
        thread.join()


def test_a_model_that_hangs_is_set_aside_while_others_go_on_and_can_be_asked_again(
    worker: Worker, keep: Callable[..., None], database: Database
) -> None:
    forms = ModelReference(name="forms", version="2.0.0")
    tries: list[int] = []

    class Hanging:
        memory_bytes = 0

        def predict(self, _batch: Any, _explained: int | None = None) -> Sequence[Seen]:
            tries.append(1)
            raise ModelFault(Fault.HANGS, "gave no answer within 60 s")

        def close(self) -> None:
            pass

    @contextmanager
    def opened() -> Iterator[ModelFolder]:
        yield ModelFolder(a_model(), Path("shapes"), Path("shapes/shapes.keras"), WEIGHTS_SHA256)

    served = ServedModel(opened, USUAL_LIMITS, lambda *_: cast("ForwardProcess", Hanging()))
    good = worker.models.of(SHAPES)
    hanging = replace(good, predict=served.predict, reader=served.reader)
    other = replace(good, description=a_model(name="forms", version="2.0.0"))
    keep(an_instance())
    with database.transaction() as transaction:
        for number in range(1, 6):
            for place, asked in enumerate((SHAPES, forms)):
                request = a_request(model=asked, case_version=number)
                unique = request.model_copy(update={"id": UUID(int=10 * number + place)})
                outbox.send(transaction, unique)

    consume_until(
        database,
        replace(worker, models=Held({SHAPES: hanging, forms: other})),
        lambda: (
            len(dead_letters.list_open(database)) == 5
            and len(sent(database, InferenceCompleted)) == 5
        ),
    )
    served.close()

    assert len(tries) == MOST_FAULTS**2
    assert {each.model for each in sent(database, InferenceCompleted)} == {forms}
    failed = sent(database, InferenceFailed)
    assert {each.model for each in failed} == {SHAPES}
    assert "is set aside on this worker: 9 times in a row it gave no answer" in failed[-1].reason
    letters = dead_letters.list_open(database)
    with database.transaction() as transaction:
        for letter in letters:
            dead_letters.replay(transaction, letter.id, who="admin", why="it is back")

    consume_until(
        database,
        replace(worker, models=Held({SHAPES: good, forms: other})),
        lambda: len(sent(database, InferenceCompleted)) == 10,
    )

    assert dead_letters.list_open(database) == []
