"""Commands over a database: what they show, and what they decide."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from admin_api import passwords, users
from countersign.cli import app
from message_contracts.topology import WORKFLOW
from service_runtime.database import Database
from service_runtime.messaging import backlog, dead_letters, outbox
from tests.unit.message_contracts.test_golden_payloads import golden_files


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an installation, by the command that makes one."""
    # Set here too, so that it is as before when the test ends.
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["db", "upgrade", "--data", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "revision" in result.output
    return tmp_path


@pytest.fixture
def database(data: Path) -> Database:
    return Database(f"sqlite:///{data / 'countersign.sqlite3'}")


def run(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    return result.exit_code, result.output


def a_dead_letter(database: Database, body: bytes | None = None) -> str:
    held = outbox.Delivery(
        queue=WORKFLOW,
        message_id=str(uuid4()),
        routing_key="study.opened",
        body=golden_files()[0].read_bytes() if body is None else body,
        attempt=3,
        claims=1,
        lease_token="",
    )
    with database.transaction() as transaction:
        outbox.bury(transaction, held, "the reason", 4)
    return dead_letters.list_open(database)[0].id


def test_upgrading_twice_changes_nothing(data: Path) -> None:
    assert run("db", "upgrade", "--data", str(data))[0] == 0


def test_there_are_no_dead_letters_at_first(data: Path) -> None:
    assert run("dead-letters", "list", "--data", str(data)) == (0, "no dead letters\n")


def test_a_dead_letter_is_listed_with_its_reason(data: Path, database: Database) -> None:
    dead = a_dead_letter(database)

    exit_code, output = run("dead-letters", "list", "--data", str(data))

    assert exit_code == 0
    assert dead in output
    assert "the reason" in output
    assert WORKFLOW in output


def test_a_replayed_dead_letter_waits_in_its_queue_again(data: Path, database: Database) -> None:
    dead = a_dead_letter(database)

    exit_code, _ = run("dead-letters", "replay", dead, "--data", str(data))

    assert exit_code == 0
    assert backlog.waiting(database) == {WORKFLOW: 1}
    assert dead_letters.list_open(database) == []


def test_a_discarded_dead_letter_is_kept_with_who_and_why(data: Path, database: Database) -> None:
    dead = a_dead_letter(database)

    exit_code, _ = run("dead-letters", "discard", dead, "--why", "a test", "--data", str(data))

    assert exit_code == 0
    with database.reading() as connection:
        row = connection.execute(text("SELECT * FROM dead_letter")).one()
    assert (row.resolution, row.why) == ("discarded", "a test")
    assert "command line" in row.resolved_by


def test_what_cannot_be_replayed_is_told_in_a_line(data: Path, database: Database) -> None:
    dead = a_dead_letter(database, body=b"rubbish")

    exit_code, output = run("dead-letters", "replay", dead, "--data", str(data))

    assert exit_code == 1
    assert "not JSON" in output
    assert len(dead_letters.list_open(database)) == 1


def test_a_dead_letter_that_is_not_there_is_told(data: Path) -> None:
    exit_code, output = run("dead-letters", "replay", "nothing", "--data", str(data))

    assert exit_code == 1
    assert "none open of this id" in output


def test_an_untouched_history_is_intact(data: Path) -> None:
    exit_code, output = run("audit", "verify", "--data", str(data))

    assert exit_code == 0
    assert "0 rows of history, 0 signatures: intact" in output


def test_a_history_whose_end_was_cut_off_is_told(data: Path, database: Database) -> None:
    with database.transaction() as transaction:
        transaction.connection.execute(text("UPDATE history_head SET sequence = 2"))

    exit_code, output = run("audit", "verify", "--data", str(data))

    assert exit_code == 1
    assert "rows 1 to 2 were cut off" in output


def test_an_account_is_made_listed_and_closed(data: Path) -> None:
    where = ("--data", str(data))

    added = run(
        *("users", "add", "reader@hospital.example", "--role", "doctor", "--password-stdin"),
        *("--name", "Dr. Reader", *where),
        stdin="a long enough password\n",
    )
    listed = run("users", "list", *where)
    disabled = run("users", "disable", "reader@hospital.example", *where)
    after = run("users", "list", *where)

    assert added[0] == 0, added[1]
    assert "reader@hospital.example  doctor  enabled  Dr. Reader" in listed[1]
    assert disabled[0] == 0, disabled[1]
    assert "disabled" in after[1]


def test_a_forgotten_password_and_a_changed_role_are_mended(data: Path, database: Database) -> None:
    where = ("--data", str(data))
    email = "reader@hospital.example"
    run(
        *("users", "add", email, "--role", "doctor", "--password-stdin", *where),
        stdin="a long enough password\n",
    )
    before = users.by_email(database, email)

    short = run("users", "set-password", email, "--password-stdin", *where, stdin="short\n")
    changed = run(
        *("users", "set-password", email, "--password-stdin", *where),
        stdin="another long password\n",
    )
    moved = run("users", "set-role", email, "--role", "admin", *where)

    after = users.by_email(database, email)
    assert short[0] == 1
    assert "password" in short[1]
    assert changed[0] == moved[0] == 0
    assert before is not None
    assert after is not None
    assert passwords.matches(after.password_hash, "another long password")
    assert after.role == "admin"
    assert after.token_generation > before.token_generation


def test_an_account_that_is_there_is_not_made_again(data: Path) -> None:
    arguments = ("users", "add", "a@b.example", "--role", "admin", "--password-stdin")

    first = run(*arguments, "--data", str(data), stdin="a long enough password\n")
    second = run(*arguments, "--data", str(data), stdin="another long password\n")

    assert first[0] == 0, first[1]
    assert second[0] == 1


def test_closing_an_account_that_is_none_is_told(data: Path) -> None:
    exit_code, output = run("users", "disable", "nobody@b.example", "--data", str(data))

    assert exit_code == 1
    assert output.strip()
