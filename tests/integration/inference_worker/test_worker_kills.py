"""Workers killed with -9 while they read leave one result set per study and model version."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import func, select

from imaging_store.instances import FileInstanceStore, open_instance_store
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.results import result_object
from message_contracts import catalogue, topology
from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceCompleted, InferenceRequested, ModelReference
from service_runtime.database import Database
from service_runtime.messaging import backlog, outbox
from service_runtime.messaging.tables import delivery, message
from service_runtime.process_identity import token_of
from tests.peers.processes import ServerProcess, wait_until
from tests.synthetic_images import an_image, part10
from tests.tiny_model import TINY_NAME, drawn_pictures, make_tiny_model

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(0)]
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
MODEL = ModelReference(name=TINY_NAME, version="1.0.0")
QUEUE = topology.INFERENCE_ROUTINE
PATIENT_S = 240


@dataclass
class Ward:
    """Workers that are killed, and what they are to read."""

    database: Database
    store: FileInstanceStore
    environment: dict[str, str]
    folder: Path
    chance: random.Random

    def worker(self, number: int) -> ServerProcess:
        started = ServerProcess(
            [sys.executable, "-m", "inference_worker"],
            log=self.folder / f"worker-{number}.log",
            environment=self.environment,
        )
        started.start()
        return started

    def keep(self, count: int) -> None:
        """Keep studies of one instance each, and have the model asked for each of them."""
        pictures, _ = drawn_pictures(8, seed=5)
        with self.database.transaction() as transaction:
            for number in range(1, count + 1):
                stored = np.kron(pictures[number % 8], np.ones((4, 4), np.uint8))
                uids = {
                    "StudyInstanceUID": f"2.25.{number}",
                    "SeriesInstanceUID": f"2.25.{number}.1",
                    "SOPInstanceUID": f"2.25.{number}.1.1",
                }
                key = f"instances/{number}.dcm"
                self.store.put_artifact(key, part10(an_image(stored, **uids)))
                row = {
                    "study_instance_uid": uids["StudyInstanceUID"],
                    "series_instance_uid": uids["SeriesInstanceUID"],
                    "sop_instance_uid": uids["SOPInstanceUID"],
                    "opened_at": NOON,
                    "version": 1,
                    "key": key,
                    "image_type": [],
                    "number_of_frames": 1,
                    "makes_version": True,
                    "study_version": 1,
                    "size_bytes": 1,
                    "received_at": NOON,
                }
                for table in (study, instance):
                    transaction.connection.execute(table.insert(), _filled(table, row))
                request = InferenceRequested(
                    case_id=UUID(int=number),
                    case_version=1,
                    study_instance_uid=uids["StudyInstanceUID"],
                    model=MODEL,
                    sop_instance_uids=(uids["SOPInstanceUID"],),
                )
                outbox.send(transaction, Envelope.of(request, source="test", time=NOON))

    def answered(self) -> Counter[str]:
        """Count the answers of each study."""
        with self.database.reading() as connection:
            bodies = connection.execute(select(message.c.body)).scalars().all()
        found = [catalogue.decode(bytes(body)).body for body in bodies]
        return Counter(
            body.study_instance_uid for body in found if isinstance(body, InferenceCompleted)
        )

    def files(self) -> int:
        """Count what has been written of results."""
        return sum(1 for _ in (self.store.root / "results").rglob("*.*"))

    def kill(self, worker: ServerProcess) -> None:
        """Kill it at some moment, and let go of what it held, as its supervisor would."""
        process_id = worker.pid
        token = token_of(process_id)
        # Anywhere between the files of a result set.
        enough = self.files() + self.chance.randint(0, 3)
        wait_until(
            lambda: self.files() >= enough or not backlog.waiting(self.database).get(QUEUE),
            timeout_s=PATIENT_S,
            what="some more files of results",
        )
        os.kill(process_id, signal.SIGKILL)
        worker.stop()
        with self.database.transaction() as transaction:
            outbox.release_leases_of(transaction, token)


def _filled(table: Any, row: dict[str, Any]) -> dict[str, Any]:
    texts = {
        column.name: ""
        for column in table.c
        if not column.nullable and column.type.python_type is str
    }
    return texts | {name: value for name, value in row.items() if name in table.c}


@pytest.fixture
def chance() -> random.Random:
    """Give what decides at random; COUNTERSIGN_TEST_SEED repeats a run."""
    seed = os.environ.get("COUNTERSIGN_TEST_SEED") or str(random.SystemRandom().randrange(2**32))
    print(f"COUNTERSIGN_TEST_SEED={seed}")  # noqa: T201 - a failure must be repeatable
    return random.Random(seed)


@pytest.fixture
def ward(sqlite_url: str, tmp_path: Path, chance: random.Random) -> Iterator[Ward]:
    make_tiny_model(tmp_path / "models" / TINY_NAME)
    database = Database(sqlite_url)
    store_url = f"file:{tmp_path / 'store'}"
    environment = {
        **os.environ,
        "COUNTERSIGN_DATA_DIR": str(tmp_path),
        "COUNTERSIGN_DATABASE_URL": sqlite_url,
        "COUNTERSIGN_STORE_URL": store_url,
        "COUNTERSIGN_MODELS_DIR": str(tmp_path / "models"),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    yield Ward(database, open_instance_store(store_url), environment, tmp_path, chance)
    database.close()


def kill_workers_while_they_read(ward: Ward, studies: int, kills: int) -> None:
    """Read all studies with two workers; kill one of them at a time, again and again."""
    ward.keep(studies)
    workers = [ward.worker(1), ward.worker(2)]
    try:
        for number in range(kills):
            enough = 1 + number * (studies - 5) // kills
            wait_until(
                lambda enough=enough: ward.answered().total() >= enough,  # type: ignore[misc]
                timeout_s=PATIENT_S,
                what=f"{enough} studies are read",
            )
            ward.kill(workers.pop(0))
            workers.append(ward.worker(number + 3))
        wait_until(
            lambda: ward.answered().total() >= studies,
            timeout_s=PATIENT_S,
            what="every study is read",
        )
    finally:
        for worker in workers:
            worker.stop()


def has_one_result_set_of_each(ward: Ward, studies: int) -> None:
    assert set(ward.answered().values()) == {1}
    with ward.database.reading() as connection:
        rows = connection.execute(select(result_object)).all()
        # What the answers wait for is no worker's.
        left = connection.execute(
            select(delivery.c.queue).where(delivery.c.queue.like("inference%"))
        ).all()
    assert left == []
    assert Counter(row.study_instance_uid for row in rows) == dict.fromkeys(ward.answered(), 2)
    assert len(ward.answered()) == studies
    for row in rows:
        assert hashlib.sha256(ward.store.read(row.key)).hexdigest() == row.sha256


def result_objects(ward: Ward) -> int:
    with ward.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(result_object)).scalar_one()


@pytest.mark.slow
def test_killed_workers_leave_one_result_set_per_study(ward: Ward) -> None:
    kill_workers_while_they_read(ward, studies=20, kills=3)

    has_one_result_set_of_each(ward, 20)


@pytest.mark.soak
def test_many_killed_workers_leave_one_result_set_per_study(ward: Ward) -> None:
    began_s = time.monotonic()

    kill_workers_while_they_read(ward, studies=200, kills=40)

    has_one_result_set_of_each(ward, 200)
    answered = ward.answered()
    figures = {
        "soak": "killed workers",
        "kills": 40,
        "studies": len(answered),
        "answers": answered.total(),
        "result_objects": result_objects(ward),
        "seconds": round(time.monotonic() - began_s),
        "seed": os.environ.get("COUNTERSIGN_TEST_SEED"),
    }
    # On a line of its own, which pytest's dots would begin.
    print("\n" + json.dumps(figures))  # noqa: T201 - the figures are what a soak is run for
