"""``countersign destinations``, as an administrator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.peers.orthanc import Orthanc
from tests.peers.processes import LOOPBACK, free_port


@pytest.fixture
def environment(sqlite_url: str, tmp_path: Path, orthanc: Orthanc) -> dict[str, str]:
    destinations = [
        {
            "name": "archive",
            "ae_title": orthanc.ae_title,
            "host": LOOPBACK,
            "port": orthanc.dicom_port,
            "window": "20:00-06:00",
        },
        {"name": "away", "ae_title": "AWAY", "host": LOOPBACK, "port": free_port()},
    ]
    return {
        **os.environ,
        "COUNTERSIGN_DATA_DIR": str(tmp_path),
        "COUNTERSIGN_DATABASE_URL": sqlite_url,
        "COUNTERSIGN_PACS_DESTINATIONS": json.dumps(destinations),
    }


def run(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "countersign", "destinations", *arguments],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_destinations_are_listed_paused_and_let_go_on(environment: dict[str, str]) -> None:
    paused = run(environment, "pause", "archive", "--why", "The PACS is updated.")
    _, listed = run(environment, "list")
    resumed = run(environment, "resume", "archive")
    _, again = run(environment, "list")

    assert paused == (0, "archive is paused\n")
    assert "archive  ORTHANC@" in listed
    assert "The PACS is updated." in listed
    assert "sent to between 20:00-06:00" in listed
    assert resumed == (0, "archive goes on\n")
    assert "paused" not in again
    assert again.count("0 waiting") == 2


def test_an_echo_and_the_probe_say_how_a_destination_is(environment: dict[str, str]) -> None:
    assert run(environment, "echo", "archive") == (0, "archive answers\n")
    code, said = run(environment, "echo", "away")
    assert (code, said.strip()) == (1, "nobody answers for away: Connection refused")
    code, said = run(environment, "probe", "archive")
    assert code == 0
    assert "Secondary Capture Image Storage: Implicit VR Little Endian, Explicit VR" in said
    assert "Storage Commitment Push Model SOP Class" in said


def test_a_name_that_is_not_there_is_refused(environment: dict[str, str]) -> None:
    code, said = run(environment, "pause", "nowhere", "--why", "x")

    assert (code, said) == (1, "name: not in COUNTERSIGN_PACS_DESTINATIONS\n")
