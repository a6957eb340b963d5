"""``countersign destinations``, as an administrator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from message_contracts import catalogue, topology
from message_contracts.delivery import AttachmentRequested
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from service_runtime.messaging import outbox
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
    assert "`countersign destinations resume archive`" in listed
    assert again.count("nothing waits") == 2


def test_an_echo_and_the_probe_say_how_a_destination_is(environment: dict[str, str]) -> None:
    assert run(environment, "echo", "archive") == (0, "archive answers\n")
    code, said = run(environment, "echo", "away")
    assert (code, said.strip()) == (1, "nobody answers for away: Connection refused")
    code, said = run(environment, "probe", "archive")
    assert code == 0
    assert "Secondary Capture Image Storage: Implicit VR Little Endian, Explicit VR" in said
    assert "Storage Commitment Push Model SOP Class" in said


def test_what_waits_is_listed_case_by_case(environment: dict[str, str], sqlite_url: str) -> None:
    asked = Envelope.of(
        AttachmentRequested(
            case_id=UUID(int=7),
            case_version=2,
            study_instance_uid="2.25.1",
            destination="away",
            sop_instance_uids=("2.25.2",),
        ),
        source="test",
        time=datetime(2026, 3, 1, tzinfo=UTC),
    )
    database = Database(sqlite_url)
    with database.transaction() as transaction:
        outbox.keep(transaction, str(asked.id), asked.body.TYPE, catalogue.encode(asked))
        branch = topology.branch_of(topology.ATTACHMENT, "away")
        outbox.deliver(transaction, str(asked.id), [branch], attempt=3, error="Connection refused")
    database.close()

    _, listed = run(environment, "list")
    _, waiting = run(environment, "waiting", "away")

    assert "  1 waiting since " in listed
    assert listed.count("nothing waits") == 1
    assert waiting.startswith(f"{UUID(int=7)} v2  results  since ")
    assert "tried 3 times" in waiting
    assert waiting.endswith(": Connection refused\n")
    assert run(environment, "waiting", "archive") == (0, "nothing waits\n")


@pytest.mark.parametrize("command", [("pause", "--why", "x"), ("resume",), ("waiting",)])
def test_a_name_that_is_not_there_is_refused(
    environment: dict[str, str], command: tuple[str, ...]
) -> None:
    code, said = run(environment, command[0], "nowhere", *command[1:])

    assert (code, said) == (1, "name: not in COUNTERSIGN_PACS_DESTINATIONS\n")
