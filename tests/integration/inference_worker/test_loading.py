"""A model's files come from its folder, or else from the store; they are checked each time."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imaging_store.instances import FileInstanceStore
from imaging_store.model_registry import ModelState, RegisteredModel, weights_key
from inference_worker import loading
from inference_worker.forward_process import Limits
from inference_worker.loading import ModelSource, keep_files
from inference_worker.model_folder import (
    InvalidModelFolder,
    ModelFolder,
    load_model_folder,
    write_description,
)
from inference_worker.results import LoadedModel
from inference_worker.served_model import Opened
from message_contracts.inference import ModelReference
from tests.readings import a_model

WEIGHTS = b"weights that nobody loads"
SHAPES = ModelReference(name="shapes", version="1.2.3")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    path = tmp_path / "shapes"
    path.mkdir()
    described = a_model(weights_sha256=hashlib.sha256(WEIGHTS).hexdigest())
    (path / described.weights).write_bytes(WEIGHTS)
    write_description(described, path)
    return load_model_folder(path)


@pytest.fixture
def loaded_weights(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    found: list[bytes] = []

    def load_model(opened: Opened, _limits: Limits) -> LoadedModel:
        with opened() as folder:
            found.append(folder.weights_path.read_bytes())
            return LoadedModel(folder.description, folder.weights_sha256, lambda _: [])

    monkeypatch.setattr(loading, "load_model", load_model)
    return found


def registered(folder: ModelFolder) -> RegisteredModel:
    return RegisteredModel(
        reference=SHAPES,
        state=ModelState.ACTIVE,
        device_uid=folder.description.device_uid,
        weights_sha256=folder.weights_sha256,
        description=folder.description.model_dump(mode="json"),
        registered_at=datetime(2026, 7, 14, tzinfo=UTC),
        last_decision=None,
    )


def test_a_folder_that_was_found_is_loaded(
    store: FileInstanceStore, folder: ModelFolder, loaded_weights: list[bytes]
) -> None:
    ModelSource(store, {SHAPES: folder}, {}).load(registered(folder))

    assert loaded_weights == [WEIGHTS]


def test_a_folder_whose_weights_changed_since_is_refused_by_the_field(
    store: FileInstanceStore, folder: ModelFolder, loaded_weights: list[bytes]
) -> None:
    folder.weights_path.write_bytes(b"others")

    with pytest.raises(InvalidModelFolder, match="shapes: weights_sha256"):
        ModelSource(store, {SHAPES: folder}, {}).load(registered(folder))

    assert loaded_weights == []


def test_a_folder_that_holds_another_version_by_now_is_passed_over(
    store: FileInstanceStore, folder: ModelFolder, loaded_weights: list[bytes]
) -> None:
    keep_files(store, folder)
    others = b"weights of the next version"
    folder.weights_path.write_bytes(others)
    later = a_model(
        version="1.3.0", device_uid="2.25.9", weights_sha256=hashlib.sha256(others).hexdigest()
    )
    write_description(later, folder.path)

    loaded = ModelSource(store, {SHAPES: folder}, {}).load(registered(folder))

    assert loaded_weights == [WEIGHTS]
    assert loaded.description.version == "1.2.3"


def test_without_a_folder_the_store_has_it(
    store: FileInstanceStore, folder: ModelFolder, loaded_weights: list[bytes]
) -> None:
    keep_files(store, folder)
    folder.weights_path.unlink()
    source = ModelSource(store, {}, {})

    source.load(registered(folder))

    assert loaded_weights == [WEIGHTS]
    assert source.is_kept(folder.weights_sha256)


def test_what_rotted_in_the_store_is_refused_by_the_field(
    store: FileInstanceStore, folder: ModelFolder, loaded_weights: list[bytes]
) -> None:
    store.put_artifact(weights_key(folder.weights_sha256), b"rotten")

    with pytest.raises(InvalidModelFolder, match=r"shapes-1\.2\.3: weights_sha256"):
        ModelSource(store, {}, {}).load(registered(folder))


def test_what_is_nowhere_is_told_with_why_its_folder_was_refused(
    store: FileInstanceStore, folder: ModelFolder
) -> None:
    with pytest.raises(InvalidModelFolder, match="countersign models add"):
        ModelSource(store, {}, {}).load(registered(folder))
    with pytest.raises(InvalidModelFolder, match="shapes: weights: there is no file"):
        ModelSource(store, {}, {SHAPES: "shapes: weights: there is no file"}).load(
            registered(folder)
        )
