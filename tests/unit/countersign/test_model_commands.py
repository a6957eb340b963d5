"""What is said of model folders; none of it needs TensorFlow."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from countersign.cli import app
from countersign.phantom import draw_chest_phantom
from inference_worker.model_folder import write_description
from message_contracts.identifiers import derived_uid
from message_contracts.model_description import ModelDescription
from tests.tiny_model import DESCRIPTION, TINY_NAME
from tests.unit.countersign.test_phantom import AT, STUDY
from tests.unit.countersign.test_send import shipped

WEIGHTS = b"weights that nobody loads"


def make_folder(root: Path, version: str) -> Path:
    folder = root / f"tiny-{version}"
    folder.mkdir()
    (folder / "weights.keras").write_bytes(WEIGHTS)
    described = DESCRIPTION | {
        "version": version,
        "weights_sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "device_uid": derived_uid("model", version),
    }
    write_description(ModelDescription.model_validate(described), folder)
    return folder


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("COUNTERSIGN_MODELS_DIR", str(folder))
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path / "unused"))
    return folder


@pytest.fixture
def phantom(tmp_path: Path) -> str:
    file = tmp_path / "phantom.dcm"
    draw_chest_phantom(STUDY, AT).save_as(file, enforce_file_format=True)
    return str(file)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *arguments])
    return result.exit_code, result.output


def test_every_folder_is_listed(models_dir: Path) -> None:
    make_folder(models_dir, "1.0.0")
    make_folder(models_dir, "1.1.0")

    exit_code, output = run("list")

    assert exit_code == 0
    assert f"{TINY_NAME}@1.0.0" in output
    assert f"{TINY_NAME}@1.1.0" in output


def test_a_folder_without_its_weights_is_refused_by_the_field(models_dir: Path) -> None:
    (make_folder(models_dir, "1.0.0") / "weights.keras").unlink()

    exit_code, output = run("list")

    assert exit_code == 1
    assert "weights" in output


def test_a_field_that_nobody_knows_is_refused_by_name(models_dir: Path) -> None:
    description = make_folder(models_dir, "1.0.0") / "model.yaml"
    description.write_text(f"{description.read_text()}\nclases: []\n")

    exit_code, output = run("list")

    assert exit_code == 1
    assert "clases" in output


def test_without_a_version_the_newest_is_shown(models_dir: Path) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        make_folder(models_dir, version)

    exit_code, output = run("show", TINY_NAME)

    assert exit_code == 0
    assert yaml.safe_load(output)["version"] == "1.10.0"


def test_a_version_may_be_named(models_dir: Path) -> None:
    for version in ("1.9.0", "1.10.0"):
        make_folder(models_dir, version)

    assert yaml.safe_load(run("show", f"{TINY_NAME}@1.9.0")[1])["version"] == "1.9.0"


def test_a_model_that_is_not_there_is_told_with_those_that_are(models_dir: Path) -> None:
    make_folder(models_dir, "1.0.0")

    exit_code, output = run("show", "brain")

    assert exit_code == 1
    assert f"there are: {TINY_NAME}@1.0.0" in output


def test_a_model_reads_what_its_rule_declares(models_dir: Path, phantom: str) -> None:
    make_folder(models_dir, "1.0.0")

    exit_code, output = run("match", phantom)

    assert exit_code == 0
    assert f"{TINY_NAME}@1.0.0: reads it" in output


def test_a_model_says_why_it_does_not_read_an_instance(models_dir: Path) -> None:
    make_folder(models_dir, "1.0.0")

    exit_code, output = run("match", str(shipped("CT_small.dcm")))

    assert exit_code == 1
    assert "Modality (0008,0060) is not DX or CR." in output
    assert "NO_MODEL" in output


@pytest.mark.parametrize("name", ["nothing.dcm", "letter.txt"])
def test_what_is_not_dicom_is_named(models_dir: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")

    exit_code, output = run("match", str(tmp_path / name))

    assert exit_code == 1
    assert name in output
