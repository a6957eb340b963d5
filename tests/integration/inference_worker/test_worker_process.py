"""The worker as it runs: a process that registers, warms up, reads, and drains when told to."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import cv2
import numpy as np
import pytest
from sqlalchemy import select

from imaging_store.instances import open_instance_store
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.results import model
from message_contracts import catalogue
from message_contracts.envelope import Envelope
from message_contracts.inference import (
    InferenceCompleted,
    InferenceRequested,
    ModelReference,
    Urgency,
)
from service_runtime.database import Database
from service_runtime.messaging import outbox
from service_runtime.messaging.tables import message
from tests.peers.processes import ServerProcess, wait_until
from tests.synthetic_images import STUDY_INSTANCE_UID, an_image, part10
from tests.tiny_model import drawn_pictures, make_tiny_model

pytestmark = pytest.mark.tensorflow
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny-chest")
    broken = folder / "broken"
    broken.mkdir()
    (broken / "model.yaml").write_text("name: broken\nfavorite_color: blue\n")
    return folder


@pytest.fixture
def environment(sqlite_url: str, models_dir: Path, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "COUNTERSIGN_DATA_DIR": str(tmp_path),
        "COUNTERSIGN_DATABASE_URL": sqlite_url,
        "COUNTERSIGN_STORE_URL": f"file:{tmp_path / 'store'}",
        "COUNTERSIGN_MODELS_DIR": str(models_dir),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }


def keep(database: Database, store_url: str, stored: Any) -> None:
    dataset = an_image(stored)
    open_instance_store(store_url).put_artifact("instances/one.dcm", part10(dataset))
    texts = {
        column.name: ""
        for table in (study, instance)
        for column in table.c
        if not column.nullable and column.type.python_type is str
    }
    shared = {**texts, "study_instance_uid": STUDY_INSTANCE_UID, "opened_at": NOON, "version": 1}
    of_instance = {
        **texts,
        "study_instance_uid": STUDY_INSTANCE_UID,
        "sop_instance_uid": dataset.SOPInstanceUID,
        "key": "instances/one.dcm",
        "image_type": [],
        "number_of_frames": 1,
        "makes_version": True,
        "study_version": 1,
        "size_bytes": 1,
        "received_at": NOON,
    }
    with database.transaction() as transaction:
        for table, row in ((study, shared), (instance, of_instance)):
            columns = {column.name for column in table.c}
            transaction.connection.execute(
                table.insert(), {name: value for name, value in row.items() if name in columns}
            )


def answers(database: Database) -> list[InferenceCompleted]:
    with database.reading() as connection:
        bodies = connection.execute(select(message.c.body)).scalars().all()
    found = [catalogue.decode(body).body for body in bodies]
    return [body for body in found if isinstance(body, InferenceCompleted)]


def test_registering_needs_no_tensorflow_and_sets_a_broken_folder_aside(
    environment: dict[str, str], database: Database
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", "-m", "inference_worker", "--register-only"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    with database.reading() as connection:
        [row] = connection.execute(select(model)).all()
    assert row.name == "tiny-chest"
    assert "tensorflow" not in done.stderr
    assert "favorite_color" in done.stderr
    assert "model.set_aside" in done.stderr


def test_an_unknown_argument_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inference_worker", "--registre-only"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert "--register-only" in done.stderr


@pytest.mark.slow
def test_the_process_reads_what_it_is_asked_to_and_drains(
    environment: dict[str, str], database: Database, tmp_path: Path
) -> None:
    pictures, labels = drawn_pictures(8, seed=5)
    # The second class of the drawn pictures is "Normal": noise alone.
    # Four times as large: a matrix of 32 x 32 would be refused.
    keep(
        database, environment["COUNTERSIGN_STORE_URL"], np.kron(pictures[1], np.ones((4, 4), "u1"))
    )
    worker = ServerProcess(
        [sys.executable, "-m", "inference_worker"],
        log=tmp_path / "worker.log",
        # One of those that can wait, and one that cannot, at the same time.
        environment={**environment, "COUNTERSIGN_STUDIES_AT_ONCE": "1"},
    )

    def ask(*urgencies: Urgency, first: int) -> None:
        with database.transaction() as transaction:
            for number, urgency in enumerate(urgencies, start=first):
                request = InferenceRequested(
                    case_id=UUID(int=number),
                    case_version=1,
                    study_instance_uid=STUDY_INSTANCE_UID,
                    model=ModelReference(name="tiny-chest", version="1.0.0"),
                    sop_instance_uids=("2.25.103",),
                    urgency=urgency,
                )
                outbox.send(transaction, Envelope.of(request, source="test", time=NOON))

    # What is asked for while the model is loading is put off: who overtakes whom says nothing.
    ask(Urgency.ROUTINE, first=1)
    worker.start()
    try:
        wait_until(lambda: len(answers(database)) == 1, what="the first answer")
        ask(*[Urgency.ROUTINE] * 3, Urgency.URGENT, first=2)
        wait_until(lambda: len(answers(database)) == 5, what="five answers")
    finally:
        exit_code = worker.stop()

    assert exit_code == 0
    log = worker.log.read_text()
    assert "service.stopped" in log
    store = open_instance_store(environment["COUNTERSIGN_STORE_URL"])
    for answer in answers(database):
        assert answer.probabilities[0].label == "Normal"
        picture = cv2.imdecode(
            np.frombuffer(store.read(answer.heatmap_key), np.uint8), cv2.IMREAD_COLOR
        )
        assert picture.shape[1] == 512
    # What is urgent overtakes, though its message was sent last.
    completed = [line for line in log.splitlines() if "inference.completed" in line]
    assert str(UUID(int=5)) not in completed[-1]
    assert labels[1] == 1
