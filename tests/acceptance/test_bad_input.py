"""Rubbish gets an error of its own, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from tests.acceptance.people import Team
from tests.acceptance.studies import a_chest_study, part10
from tests.acceptance.system import AE_TITLE, CountersignSystem
from tests.peers.processes import LOOPBACK, wait_until


def send(system: CountersignSystem, file: Path) -> tuple[int | None, str]:
    """Send a file with the product's own command; return its exit code and what it printed."""
    address = f"{AE_TITLE}@{LOOPBACK}:{system.dicom_port}"
    command = system.command("send", str(file), "--to", address, name=file.stem)
    command.start()
    wait_until(lambda: not command.is_running(), what="the command ends")
    return command.returncode, command.log_tail(200)


def written(folder: Path, name: str, instance: FileDataset) -> Path:
    """Write an instance to a file."""
    path = folder / name
    path.write_bytes(part10(instance))
    return path


def test_a_file_that_is_not_dicom_is_named(system: CountersignSystem, tmp_path: Path) -> None:
    file = tmp_path / "holiday.txt"
    file.write_text("not DICOM")

    exit_code, output = send(system, file)

    assert exit_code == 1
    assert "holiday.txt" in output
    assert "DICOM" in output


def test_a_data_set_without_a_study_is_refused_and_kept(
    system: CountersignSystem, tmp_path: Path
) -> None:
    instance = a_chest_study()
    instance.StudyInstanceUID = ""
    file = written(tmp_path, "nostudy.dcm", instance)

    exit_code, output = send(system, file)

    assert exit_code == 1
    assert "C000" in output.upper()
    assert "Study Instance UID" in output
    kept = [path for path in system.data_dir.rglob("*") if "quarantine" in str(path)]
    assert any(path.is_file() for path in kept)


def test_truncated_pixels_are_kept_and_told_to_the_doctor(
    system: CountersignSystem, team: Team, tmp_path: Path
) -> None:
    instance = a_chest_study()
    instance.PixelData = instance.PixelData[: len(instance.PixelData) // 2]

    exit_code, output = send(system, written(tmp_path, "truncated.dcm", instance))

    assert exit_code == 0, output
    case = team.doctor.wait_for_status(str(instance.StudyInstanceUID), "AI_FAILED")
    assert case["stage"] == "doctor"
    assert case["failure"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/cases/00000000-0000-0000-0000-000000000000", 404),
        ("GET", "/cases/not-an-id", 422),
        ("GET", "/nothing", 404),
        ("DELETE", "/cases", 405),
    ],
)
def test_every_error_of_the_api_is_a_problem(
    system: CountersignSystem, team: Team, method: str, path: str, status: int
) -> None:
    answer = team.doctor.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["status"] == status
    assert answer.json()["title"]
