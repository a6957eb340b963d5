"""``countersign studies explain``: a class is asked for, waited for and written to a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from countersign.cli import app
from imaging_store.instances import open_instance_store
from imaging_store.schema.results import explanation
from message_contracts.identifiers import case_id_of
from message_contracts.inference import ExplanationRequested
from service_runtime.database import Database
from service_runtime.settings import StoreSettings, load
from tests.workflow_journey import Ward, a_model

UID = "1.2.826.0.1.1"


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path))
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    ward = Ward(Database(f"sqlite:///{tmp_path / 'countersign.sqlite3'}"))
    ward.register(a_model())
    ward.analyzed(UID)
    return ward


def explain(ward: Ward, *arguments: str) -> tuple[int, str]:
    command = ["studies", "explain", UID, *arguments, "--data", str(ward.database.path.parent)]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.output


def asked(ward: Ward) -> list[str]:
    bodies = [each.body for each in ward.sent()]
    return [each.label for each in bodies if isinstance(each, ExplanationRequested)]


def test_what_was_made_is_written(ward: Ward, tmp_path: Path) -> None:
    store = open_instance_store(load(StoreSettings).store)
    for name in ("e.png", "e.dcm"):
        store.put_artifact(name, name.encode())
    with ward.database.transaction() as transaction:
        transaction.connection.execute(
            insert(explanation),
            {
                "case_id": case_id_of(UID),
                "case_version": 1,
                "model_name": "chest",
                "model_version": "1.0.0",
                "label": "Normal",
                "sop_instance_uid": "2.25.7",
                "key": "e.dcm",
                "picture_key": "e.png",
                "failures": 0,
                "answered_at": ward.now,
            },
        )

    for file in (tmp_path / "a.png", tmp_path / "a.dcm"):
        code, output = explain(ward, "--class", "Normal", "--output", str(file))

        assert (code, output) == (0, f"2.25.7 is in {file}\n")
        assert file.read_bytes() == f"e{file.suffix}".encode()


def test_where_no_worker_answers_the_request_waits(ward: Ward, tmp_path: Path) -> None:
    file = str(tmp_path / "a.png")

    code, output = explain(ward, "--class", "Normal", "--output", file, "--wait-s", "0")

    assert code == 1
    assert "no worker has answered" in output
    assert asked(ward) == ["Normal"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--class", "Fracture"), "one of Bacterial pneumonia, Normal"),
        (("--class", "Normal", "--model", "hip"), "no such model has read"),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    ward: Ward, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    code, output = explain(ward, *arguments, "--output", str(tmp_path / "a.png"))

    assert code == 1
    assert reason in output
    assert asked(ward) == []
