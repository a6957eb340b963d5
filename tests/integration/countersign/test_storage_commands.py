"""``countersign storage`` over an installation that has cases behind it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from countersign.cli import app
from imaging_store.instances import FileInstanceStore
from imaging_store.schema.ingest import commitment
from message_contracts.case import CaseStatus
from service_runtime.database import Database
from tests.integration.dicom_listener.kept_studies import NOW, KeptStudies, days_ago


@pytest.fixture
def kept(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> KeptStudies:
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path))
    (tmp_path / "countersign.sqlite3").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{tmp_path / 'countersign.sqlite3'}")
    return KeptStudies(database, FileInstanceStore(tmp_path / "instances"))


def storage(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["storage", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_status_says_how_much_room_is_left_and_what_may_go(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(3000))
    kept.add("1.2", status=CaseStatus.AI_ANALYZED)

    lines = dict(line.split("  ", 1) for line in storage("status").splitlines())

    told = {name: value.strip() for name, value in lines.items()}
    assert told["instances"] == "4 instances, 0.0 MiB"
    assert told["purgeable now"] == "2 instances, 0.0 MiB"
    assert told["refused below"] == "512.0 MiB"
    assert told["purged early below"] == "2,048.0 MiB"
    assert told["kept"] == "30 days after the case ended"


def test_a_dry_run_lets_nothing_go(kept: KeptStudies) -> None:
    kept.add("1.1", ended_at=days_ago(3000))

    told = storage("purge", "--dry-run")

    assert "1.1  ended" in told
    assert "2 instances, 0.0 MiB would be purged" in told
    assert kept.purged() == set()
    assert len(kept.files()) == 2


def test_purging_by_hand_lets_go_of_all_that_is_due(kept: KeptStudies) -> None:
    for number in range(30):
        kept.add(f"1.{number}", count=1, ended_at=days_ago(3000))
    kept.add("1.99", ended_at=datetime.now(UTC))

    assert "30 instances purged" in storage("purge")

    assert len(kept.files()) == 2
    assert "0 instances purged" in storage("purge")


def test_what_is_kept_for_ever_is_not_purged(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERSIGN_RETENTION_DAYS", "0")
    kept.add("1.1", ended_at=days_ago(3000))

    assert "for ever" in storage("status")
    assert "for ever" in storage("purge", "--dry-run")
    assert "0 instances purged" in storage("purge")


def test_a_watermark_below_the_reserve_is_refused(
    kept: KeptStudies, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COUNTERSIGN_STORE_WATERMARK_MIB", "511")

    result = CliRunner().invoke(app, ["storage", "status"])

    assert result.exit_code == 2
    assert "COUNTERSIGN_STORE_WATERMARK_MIB" in result.output + capfd.readouterr().err


def test_results_of_commitments_that_nobody_took_are_shown(kept: KeptStudies) -> None:
    assert "every result has been told" in storage("commitments")
    owed = {"transaction_uid": "1.2.3", "calling_ae_title": "CT1", "requested_at": NOW}
    kept.write(commitment, id=uuid4(), attempt=3, due_at=NOW, **owed)
    kept.write(commitment, id=uuid4(), attempt=130, **owed)
    kept.write(commitment, id=uuid4(), told_at=NOW, **owed)

    lines = storage("commitments").splitlines()

    assert len(lines) == 2
    assert any("3 attempts, next 2026-07-04" in line for line in lines)
    assert any("130 attempts, given up" in line for line in lines)
