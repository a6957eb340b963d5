"""``countersign studies``: a study that waits is taken as complete by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from countersign.cli import app
from imaging_store.schema.ingest import study
from imaging_store.schema.workflow import intervention
from message_contracts.intake import CompletionRequested
from service_runtime.database import Database
from tests.workflow_journey import NOON, Ward

UID = "1.2.826.0.1.1"


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path))
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    ward = Ward(Database(f"sqlite:///{tmp_path / 'countersign.sqlite3'}"))
    ward.receive(UID)
    ward.opened(UID)
    return ward


def complete(ward: Ward, *arguments: str) -> tuple[int, str]:
    data = str(ward.database.path.parent)
    result = CliRunner().invoke(app, ["studies", "complete", *arguments, "--data", data])
    return result.exit_code, result.output


def wait_for_more(ward: Ward) -> None:
    with ward.database.transaction() as transaction:
        transaction.connection.execute(update(study).values(pending_since=NOON, quiet_until=NOON))


def test_a_waiting_study_is_taken_as_complete_with_who_and_why(ward: Ward) -> None:
    wait_for_more(ward)

    code, output = complete(ward, UID, "--why", "Down.", "--reason", "rest_will_not_come")

    assert (code, output) == (0, f"{UID} is taken as complete\n")
    assert [each.body for each in ward.sent()][-1:] == [CompletionRequested(study_instance_uid=UID)]
    with ward.database.reading() as connection:
        [act] = connection.execute(select(intervention)).all()
    assert act.printed_name.endswith("(command line)")
    assert (act.reason_code, act.notes) == ("rest_will_not_come", "Down.")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((UID, "--why", "x"), "the study is complete"),
        (("1.9", "--why", "x"), "no case"),
        ((UID, "--why", "x", "--reason", "boredom"), "all_has_arrived"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    ward: Ward, arguments: tuple[str, ...], reason: str
) -> None:
    code, output = complete(ward, *arguments)

    assert code != 0
    assert reason in output
