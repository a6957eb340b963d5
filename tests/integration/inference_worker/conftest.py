"""A worker before an empty installation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydicom import Dataset

from imaging_store.instances import FileInstanceStore, open_instance_store
from imaging_store.schema.ingest import instance, study
from inference_worker.handlers import Worker
from inference_worker.results import LoadedModel
from service_runtime.database import Database
from tests.integration.inference_worker.requests_to_read import NOON, SHAPES, Held, says
from tests.readings import WEIGHTS_SHA256, a_model
from tests.synthetic_images import STUDY_INSTANCE_UID, part10


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """Open a database with nothing in it."""
    opened = Database(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    """Open an instance store with nothing in it."""
    return open_instance_store(f"file:{tmp_path / 'store'}")


@pytest.fixture
def worker(database: Database, store: FileInstanceStore) -> Worker:
    """Give a worker with one model, which says the same of every picture."""
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
