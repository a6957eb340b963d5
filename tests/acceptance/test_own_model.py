"""Bring your own Keras model, as docs/models.md says, to a system that is running."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydicom.uid import UltrasoundImageStorage

from tests.acceptance.people import Team
from tests.acceptance.studies import a_chest_study, part10
from tests.acceptance.system import CountersignSystem
from tests.conftest import CHECKOUT
from tests.peers.orthanc import Orthanc
from tests.peers.processes import wait_until

MODEL = "neck-ultrasound"
WHY = {"why": "The walk-through."}


def block(language: str) -> str:
    """Return the walk-through's first block in this language."""
    text = (CHECKOUT / "docs" / "models.md").read_text()
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the model folder of the page, by its own words."""
    path = tmp_path_factory.mktemp("own") / "neck"
    path.mkdir()
    subprocess.run([sys.executable, "-c", block("python")], cwd=path, check=True, timeout=300)
    describe(path, block("yaml"))
    return path


def describe(path: Path, text: str) -> None:
    digest = hashlib.sha256((path / "weights.keras").read_bytes()).hexdigest()
    (path / "model.yaml").write_text(text.replace("(what sha256sum prints)", digest))


def run(system: CountersignSystem, *arguments: str) -> str:
    """Run a command of the product beside the running system; it must succeed."""
    process = system.command(*arguments, name="-".join(arguments[:2]))
    process.start()
    wait_until(lambda: not process.is_running(), timeout_s=300, what=" ".join(arguments))
    assert process.returncode == 0, process.log_tail()
    return process.log.read_text()


@pytest.fixture(scope="session")
def added(system: CountersignSystem, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Add the model to the running system, and remove its folder."""
    copy = tmp_path_factory.mktemp("added") / "neck"
    shutil.copytree(folder, copy)
    told = run(system, "models", "add", str(copy))
    shutil.rmtree(copy)
    return told


def neck_of(team: Team, orthanc: Orthanc, system: CountersignSystem) -> dict[str, object]:
    """Let an ultrasound of a neck be sent and read; return its case."""
    instance = a_chest_study()
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    instance.Modality = "US"
    instance.SeriesDescription = "Soft tissue NECK, left"
    orthanc.upload(part10(instance))
    orthanc.send_study(instance.StudyInstanceUID, system.form)
    ended = ("AI_ANALYZED", "AI_FAILED")
    case = team.doctor.wait_for_status(instance.StudyInstanceUID, *ended, timeout_s=180)
    assert case["status"] == "AI_ANALYZED", case["failure"]
    return case


def readers(case: dict[str, object]) -> set[tuple[str, str]]:
    findings = case["findings"]
    assert isinstance(findings, list)
    return {(each["model"], each["version"]) for each in findings}


def test_a_model_of_ones_own_reads_the_next_study(
    added: str, system: CountersignSystem, team: Team, orthanc: Orthanc
) -> None:
    assert f"{MODEL}@1.0.0 is registered: active" in added

    case = neck_of(team, orthanc, system)

    assert readers(case) == {(MODEL, "1.0.0")}
    assert f"{MODEL}@1.0.0  active  Normal, Abnormal" in run(system, "models", "list")
    uid = str(case["study_instance_uid"])
    told = run(system, "models", "match", uid)
    assert f"{MODEL}@1.0.0: reads 1 of 1 instances" in told
    assert "Series Description (0008,103E) is *neck* or *thyroid*." in told


def test_another_version_takes_its_place_and_gives_it_back_while_all_runs(
    added: str,
    system: CountersignSystem,
    team: Team,
    orthanc: Orthanc,
    folder: Path,
    tmp_path: Path,
) -> None:
    described = yaml.safe_load((folder / "model.yaml").read_text())
    next_one = tmp_path / "next"
    shutil.copytree(folder, next_one)
    changed = described | {"version": "1.1.0", "device_uid": f"{described['device_uid']}1"}
    (next_one / "model.yaml").write_text(yaml.safe_dump(changed))
    workers = system.pids("inference_worker")

    assert "is not asked yet" in run(system, "models", "add", str(next_one))
    assert readers(neck_of(team, orthanc, system)) == {(MODEL, "1.0.0")}
    path = f"/models/{MODEL}/versions/1.1.0/activate"
    team.admin.post(path, WHY).raise_for_status()
    assert readers(neck_of(team, orthanc, system)) == {(MODEL, "1.1.0")}
    team.admin.post(f"/models/{MODEL}/roll-back", WHY).raise_for_status()
    assert readers(neck_of(team, orthanc, system)) == {(MODEL, "1.0.0")}

    assert set(workers) <= set(system.pids("inference_worker"))


def test_a_broken_model_is_refused_by_the_field_and_the_others_serve_on(
    added: str,
    system: CountersignSystem,
    team: Team,
    orthanc: Orthanc,
    folder: Path,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    text = (
        (folder / "model.yaml")
        .read_text()
        .replace("grad_cam_layer: features", "grad_cam_layer: top")
    )
    (broken / "model.yaml").write_text(text.replace("version: 1.0.0", "version: 2.0.0"))
    process = system.command("models", "add", str(broken), name="models-add-broken")

    process.start()
    wait_until(lambda: not process.is_running(), timeout_s=300, what="the refusal")

    assert process.returncode == 1
    assert "grad_cam_layer: the network has no layer top" in process.log.read_text()
    assert readers(neck_of(team, orthanc, system)) == {(MODEL, "1.0.0")}
