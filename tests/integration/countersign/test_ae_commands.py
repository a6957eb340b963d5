"""``countersign ae``: what it lists, changes and refuses."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from admin_api import application_entities
from countersign.cli import app
from service_runtime.database import Database


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path))
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    return tmp_path


def ae(data: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["ae", *arguments, "--data", str(data)])
    return result.exit_code, result.output


def test_nobody_is_listed_at_first(data: Path) -> None:
    code, output = ae(data, "list")

    assert (code, output) == (
        0,
        "nobody is listed: anyone may send from loopback, and nobody else\n",
    )


def test_what_was_added_is_listed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_COMMITMENT_DAYS", "365")
    entry = ["--network", "10.1.0.0/16", "--network", "::1", "--quiet-period-s", "5"]
    entry += ["--issuer", "CLINIC", "--time-zone", "Europe/Vienna", "--urgency", "urgent"]
    entry += ["--max-associations", "2", "--commitment", "--host", "ct1.example", "--port", "104"]
    entry += ["--tls"]

    added = ae(data, "add", "CT1", *entry)
    ae(data, "add", "MR1")
    code, output = ae(data, "list")

    assert added == (0, "CT1 may send from 10.1.0.0/16 ::1/128\n")
    assert code == 0
    ct1, mr1 = output.splitlines()
    assert ct1 == (
        "CT1  from 10.1.0.0/16 ::1/128  quiet period 5 s  issuer CLINIC  zone Europe/Vienna  "
        "associations 2  urgency urgent  commitment yes  at ct1.example:104 by TLS"
    )
    assert mr1 == "MR1  from anywhere  urgency routine"


def test_nobody_may_ask_for_commitments_before_they_mean_something(data: Path) -> None:
    code, output = ae(data, "add", "CT1", "--commitment")

    assert code == 1
    assert "COUNTERSIGN_COMMITMENT_DAYS" in output
    assert "nobody is listed" in ae(data, "list")[1]


def test_the_last_one_removed_opens_loopback_again(data: Path) -> None:
    ae(data, "add", "CT1")

    removed = ae(data, "remove", "CT1")
    again = ae(data, "remove", "CT1")

    assert removed[0] == 0
    assert "anyone may send from loopback" in removed[1]
    assert again[0] == 1
    assert "ae_title: not listed" in again[1]


def test_who_added_it_is_kept(data: Path) -> None:
    ae(data, "add", "CT1")

    [listed] = application_entities.list_all(Database(f"sqlite:///{data}/countersign.sqlite3"))
    assert listed.changed_by == f"{getpass.getuser()} (command line)"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["CT1", "--network", "10.0.0.1/8"], "networks: not an address, or a network"),
        (["CT1", "--time-zone", "Vienna"], "time_zone: not an IANA time zone"),
        (["CT1", "--host", "ct1"], "host and port: give both or neither"),
        (["THIS_IS_FAR_TOO_LONG"], "ae_title: 1 to 16 characters"),
        (["   "], "ae_title: 1 to 16 characters"),
    ],
)
def test_what_cannot_be_taken_is_named(data: Path, arguments: list[str], says: str) -> None:
    code, output = ae(data, "add", *arguments)

    assert code == 1
    assert says in output
    assert "nobody is listed" in ae(data, "list")[1]
