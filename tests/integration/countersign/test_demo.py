"""``countersign demo`` as a stranger runs it, with a small real model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from countersign.demo import RESULTS
from tests.acceptance.system import EmbeddedSystem, Surroundings
from tests.peers.processes import free_port
from tests.plain_installation import make_plain_installation
from tests.tiny_model import make_tiny_model

# It trains the small model, which needs TensorFlow.
pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny-chest")
    return folder


def run_demo(
    models_dir: Path,
    folder: Path,
    *arguments: str,
    python: str | Path = sys.executable,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    system = EmbeddedSystem(Surroundings(models_dir, "", "ARCHIVE", free_port()))
    return subprocess.run(
        [python, "-m", "countersign", "demo", *arguments],
        env={**system.environment, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_plain_installation_takes_a_phantom_to_a_signed_report_beside_a_running_system(
    models_dir: Path, tmp_path: Path
) -> None:
    plain_python = make_plain_installation(tmp_path / "plain")
    with EmbeddedSystem(Surroundings(models_dir, "", "ARCHIVE", free_port())) as other:
        # As on a small image: the system knows no time zones.
        done = run_demo(models_dir, tmp_path, python=plain_python, PYTHONTZPATH="")

        assert other.is_ready()

    assert done.returncode == 0, done.stdout + done.stderr
    assert "REPORT_READY" in done.stdout
    assert "NO_MODEL" in done.stdout
    results = tmp_path / "demo"
    for name in RESULTS:
        assert str(results / name) in done.stdout
    assert (results / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "report.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((results / "bundle.json").read_text())["type"] == "transaction"
    assert json.loads((results / "history.json").read_text())


def test_a_study_that_no_model_reads_is_signed_by_hand_and_kept(
    models_dir: Path, tmp_path: Path
) -> None:
    file = str(get_testdata_file("CT_small.dcm", download=False))
    keep = tmp_path / "kept"

    done = run_demo(models_dir, tmp_path, file, "--keep", str(keep))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "overrode" in done.stdout
    assert "no heat map" in done.stdout
    assert not (keep / "heatmap.png").exists()
    assert (keep / "report.pdf").exists()
    assert (keep / "data" / "countersign.sqlite3").exists()


def test_files_that_are_not_dicom_are_told_before_anything_starts(
    models_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("not DICOM")

    done = run_demo(models_dir, tmp_path, str(file))

    assert done.returncode == 1
    assert "letter.txt" in done.stdout
    assert "none of the files is DICOM" in done.stdout
    assert (tmp_path / "demo").stat().st_mode & 0o077 == 0, "what it is given may be a patient's"


def test_a_failure_tells_the_reason_and_where_the_logs_are(
    models_dir: Path, tmp_path: Path
) -> None:
    done = run_demo(models_dir, tmp_path, COUNTERSIGN_LOG_LEVEL="loud")

    assert done.returncode == 1
    assert "COUNTERSIGN_LOG_LEVEL" in done.stdout
    logs = tmp_path / "demo" / "logs"
    assert str(logs) in done.stdout
    assert "COUNTERSIGN_LOG_LEVEL" in (logs / "up.log").read_text()
