"""``countersign conflicts`` and ``countersign quarantine``: a person's word, from a shell."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select
from typer.testing import CliRunner

from countersign.cli import app
from imaging_store.schema.administration import quarantine_decision
from imaging_store.schema.ingest import quarantined_instance
from imaging_store.schema.workflow import history, intervention
from message_contracts.intake import (
    ConflictDecided,
    ConflictDecision,
    QuarantineDecided,
    QuarantineDecision,
)
from service_runtime.database import Database
from tests.workflow_journey import NOON, Ward

UID = "1.2.826.0.1.1"
DIGEST = "ab" * 32


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path))
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    ward = Ward(Database(f"sqlite:///{tmp_path / 'countersign.sqlite3'}"))
    ward.receive(UID)
    ward.opened(UID)
    return ward


@pytest.fixture
def conflict_id(ward: Ward) -> UUID:
    return ward.contradict(UID)


def run(ward: Ward, *arguments: object) -> tuple[int, str]:
    data = str(ward.database.path.parent)
    result = CliRunner().invoke(app, [*map(str, arguments), "--data", data])
    return result.exit_code, result.output


def test_conflicts_are_listed_without_values_and_shown_with_them(
    ward: Ward, conflict_id: UUID
) -> None:
    code, listed = run(ward, "conflicts", "list")
    _, shown = run(ward, "conflicts", "show", conflict_id)

    assert code == 0
    assert f"{conflict_id}" in listed
    assert "holds  open" in listed
    assert "P1" not in listed
    assert "* PatientID: 'P1' is known, 'P2' is claimed" in shown


def test_a_conflict_is_decided_with_who_and_why(ward: Ward, conflict_id: UUID) -> None:
    code, output = run(ward, "conflicts", "decide", conflict_id, "keep", "--why", "Asked.")

    assert (code, output) == (0, f"{conflict_id}: keep; it is being carried out\n")
    [sent] = [each.body for each in ward.sent() if isinstance(each.body, ConflictDecided)]
    assert sent.decision is ConflictDecision.KEEP
    assert sent.decided_by.endswith("(command line)")
    with ward.database.reading() as connection:
        act = connection.execute(select(intervention)).one()
        actors = connection.execute(select(history.c.actor)).scalars().all()
    assert (act.printed_name, act.notes) == (sent.decided_by, "Asked.")
    assert actors[-1] == sent.decided_by
    assert "decided" in run(ward, "conflicts", "list")[1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("keep",), "--why"),
        (("keep", "--why", " "), "say why"),
        (("keep", "--why", "x" * 4001), "4000 characters"),
        (("perhaps", "--why", "x"), "perhaps"),
        (("keep", "--why", "x", "--reason", "boredom"), "wrong_worklist_entry"),
    ],
)
def test_what_is_no_decision_is_refused(
    ward: Ward, conflict_id: UUID, arguments: tuple[str, ...], reason: str
) -> None:
    code, output = run(ward, "conflicts", "decide", conflict_id, *arguments)

    assert code != 0
    assert reason in output


def test_a_conflict_that_is_none_is_refused(ward: Ward) -> None:
    code, output = run(ward, "conflicts", "decide", uuid4(), "keep", "--why", "x")

    assert code != 0
    assert "no such conflict" in output


@pytest.mark.parametrize("decision", list(QuarantineDecision))
def test_quarantine_is_listed_and_decided(ward: Ward, decision: QuarantineDecision) -> None:
    with ward.database.transaction() as transaction:
        transaction.connection.execute(
            insert(quarantined_instance),
            {
                "id": DIGEST,
                "reason": "Study Instance UID is missing",
                "calling_ae_title": "CT1",
                "key": f"quarantine/{DIGEST}.dcm",
                "size_bytes": 7,
                "received_at": NOON,
            },
        )

    _, listed = run(ward, "quarantine", "list")
    code, output = run(ward, "quarantine", decision, DIGEST, "--why", "Looked.")

    assert "CT1  7 bytes  in quarantine  Study Instance UID is missing" in listed
    assert (code, output) == (0, f"{DIGEST}: {decision}; it is being carried out\n")
    [sent] = [each.body for each in ward.sent() if isinstance(each.body, QuarantineDecided)]
    assert sent.decision is decision
    with ward.database.reading() as connection:
        kept = connection.execute(select(quarantine_decision)).one()
    assert (kept.decided_by, kept.why) == (sent.decided_by, "Looked.")


@pytest.mark.parametrize("quarantined_id", [DIGEST, "abc"])
def test_what_is_not_in_quarantine_is_refused(ward: Ward, quarantined_id: str) -> None:
    code, output = run(ward, "quarantine", "discard", quarantined_id, "--why", "x")

    assert code == 1
    assert "nothing of this id" in output
    assert run(ward, "quarantine", "list")[1] == "nothing is in quarantine\n"
