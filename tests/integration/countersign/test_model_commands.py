"""``countersign models`` beside an installation; no network is loaded."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from countersign import model_registry_commands
from countersign.cli import app
from imaging_store.instances import open_instance_store
from imaging_store.model_registry import registered_models, weights_key
from inference_worker.model_folder import (
    ModelFolder,
    RefusedFolder,
    load_model_folder,
    write_description,
)
from inference_worker.registration import note_loading, register
from message_contracts.inference import ModelReference
from message_contracts.model_description import ModelDescription
from service_runtime.database import Database
from tests.tiny_model import DESCRIPTION, TINY_NAME
from tests.workflow_journey import Ward, a_model

WEIGHTS = b"weights that nobody loads"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
WHY = ("--why", "Tests.")
UID = "1.2.826.0.1.11"
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)


def make_folder(root: Path, version: str, **changes: Any) -> Path:
    folder = root / f"tiny-{version}"
    folder.mkdir()
    (folder / "weights.keras").write_bytes(WEIGHTS)
    described = DESCRIPTION | {
        "version": version,
        "weights_sha256": DIGEST,
        "device_uid": f"2.25.{version.replace('.', '')}",
    }
    write_description(ModelDescription.model_validate(described | changes), folder)
    return folder


@pytest.fixture
def database(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("COUNTERSIGN_STORE_URL", f"file:{tmp_path / 'store'}")
    opened = Database(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Remember what would have been loaded."""
    found: list[str] = []

    def load_once(folder: ModelFolder) -> None:
        found.append(folder.description.version)

    monkeypatch.setattr(model_registry_commands, "_load_once", load_once)
    return found


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *arguments])
    return result.exit_code, result.output


def states(database: Database) -> dict[str, str]:
    with database.reading() as connection:
        return {each.reference.version: each.state for each in registered_models(connection)}


def test_a_folder_is_added_and_not_needed_any_more(
    database: Database, tmp_path: Path, loaded: list[str]
) -> None:
    folder = make_folder(tmp_path, "1.0.0")

    exit_code, output = run("add", str(folder))

    assert (exit_code, output) == (0, f"{TINY_NAME}@1.0.0 is registered: active\n")
    assert loaded == ["1.0.0"]
    store = open_instance_store(f"file:{tmp_path / 'store'}")
    assert store.read(weights_key(DIGEST)) == WEIGHTS
    shutil.rmtree(folder)
    assert run("show", TINY_NAME)[0] == 0


def test_versions_are_activated_compared_and_rolled_back(
    database: Database, tmp_path: Path
) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        assert run("add", str(make_folder(tmp_path, version)))[0] == 0
    assert states(database) == {"1.2.0": "inactive", "1.1.0": "inactive", "1.0.0": "active"}

    assert run("activate", f"{TINY_NAME}@1.1.0", *WHY) == (0, f"{TINY_NAME}@1.1.0 is active\n")
    assert run("shadow", f"{TINY_NAME}@1.2.0", *WHY)[0] == 0
    assert states(database) == {"1.2.0": "shadow", "1.1.0": "active", "1.0.0": "inactive"}
    assert run("retire", f"{TINY_NAME}@1.2.0", *WHY)[0] == 0
    assert run("roll-back", TINY_NAME, *WHY) == (0, f"{TINY_NAME}@1.0.0 is active\n")

    assert states(database) == {"1.2.0": "inactive", "1.1.0": "inactive", "1.0.0": "active"}
    exit_code, listed = run("list")
    assert exit_code == 0
    assert f"{TINY_NAME}@1.0.0  active" in listed
    assert "roll_back" in listed
    assert "(command line): Tests." in listed


def test_the_same_version_with_other_weights_is_refused_by_the_field(
    database: Database, tmp_path: Path
) -> None:
    run("add", str(make_folder(tmp_path, "1.0.0")))
    other = tmp_path / "tiny-1.0.0"
    (other / "weights.keras").write_bytes(b"others")

    damaged = run("add", str(other))
    digest = hashlib.sha256(b"others").hexdigest()
    described = DESCRIPTION | {"weights_sha256": digest, "device_uid": "2.25.100"}
    write_description(ModelDescription.model_validate(described), other)
    described_anew = run("add", str(other))

    assert damaged[0] == 1
    assert "weights_sha256" in damaged[1]
    assert described_anew[0] == 1
    assert "version: 1.0.0 is registered with other weights; raise it" in described_anew[1]


def test_the_list_tells_which_models_were_never_loaded(database: Database, tmp_path: Path) -> None:
    folder = load_model_folder(make_folder(tmp_path, "1.0.0"))
    register(database, [folder], [], NOON)
    never_tried = run("list")
    reference = ModelReference(name=TINY_NAME, version="1.0.0")
    unloadable = RefusedFolder(folder.path, "tiny: grad_cam_layer: x", (TINY_NAME, "1.0.0"))

    note_loading(database, reference, unloadable, folder.path.name, NOON)
    refused = run("list")
    note_loading(database, reference, None, folder.path.name, NOON)

    assert never_tried[0] == 0
    assert "not loaded yet: the first study that asks for it" in never_tried[1]
    assert refused[0] == 1
    assert "refused: tiny: grad_cam_layer: x" in refused[1]
    assert "not loaded yet" not in refused[1]
    assert "not loaded yet" not in run("list")[1]


def test_what_was_added_was_loaded(database: Database, tmp_path: Path) -> None:
    run("add", str(make_folder(tmp_path, "1.0.0")))

    assert "not loaded yet" not in run("list")[1]


@pytest.mark.parametrize("arguments", [("activate", TINY_NAME), ("activate", f"{TINY_NAME}@9.9.9")])
def test_what_is_no_version_is_told(database: Database, arguments: tuple[str, ...]) -> None:
    exit_code, output = run(*arguments, *WHY)

    assert exit_code == 1
    assert TINY_NAME in output


def test_a_decision_needs_a_reason(database: Database) -> None:
    assert run("activate", f"{TINY_NAME}@1.0.0", "--why", " ")[0] == 2


def test_a_stored_study_is_matched_with_the_reason_for_each_part(
    database: Database, tmp_path: Path
) -> None:
    run("add", str(make_folder(tmp_path, "1.0.0")))
    ward = Ward(database)
    ward.receive(UID)
    ward.receive(UID, modality="MR")

    exit_code, output = run("match", UID)

    assert exit_code == 0
    assert f"{TINY_NAME}@1.0.0: reads 1 of 2 instances" in output
    assert "fits  View Position (0018,5101) is PA or AP." in output
    assert "not   Modality (0008,0060) is not DX or CR." in output
    assert run("match", "1.2.3.4")[0] == 1


def test_a_report_tells_how_each_version_does(database: Database) -> None:
    ward = Ward(database)
    ward.register(a_model())
    uid = f"{UID}.7"
    ward.analyzed(uid)
    ward.verified(uid)
    between = ("--since", "2026-03-01", "--until", "2026-03-02")

    told = CliRunner().invoke(app, ["models", "report", "chest", *between])
    as_json = CliRunner().invoke(app, ["models", "report", "chest@1.0.0", "--json", *between])
    unknown = CliRunner().invoke(app, ["models", "report", "chest@9.0.0"])

    assert told.exit_code == 0, told.output
    assert "answered 1: read 1 (0 uncertain), refused 0, failed 0" in told.output
    assert "signed by a doctor 1; they agree: 100.0% (1 of 1;" in told.output
    assert json.loads(as_json.output)["findings"]["Bacterial pneumonia"] == 1
    assert unknown.exit_code != 0


@pytest.mark.parametrize("end", ["--since", "--until"])
def test_a_report_on_a_time_that_cannot_be_is_refused_by_the_field(
    database: Database, end: str
) -> None:
    Ward(database).register(a_model())

    exit_code, output = run("report", "chest", end, "0001-01-01")

    assert exit_code == 2
    assert f"{end.removeprefix('--')} must be of the years 1970 to 9998" in output
