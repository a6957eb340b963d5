"""The command line, without a running system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from countersign.cli import app

COMMANDS = (
    ("up",),
    ("demo",),
    ("send",),
    ("self-test",),
    ("users", "add"),
    ("users", "list"),
    ("users", "disable"),
    ("users", "set-password"),
    ("users", "set-role"),
    ("models", "list"),
    ("models", "show"),
    ("models", "match"),
    ("models", "evaluate"),
    ("audit", "verify"),
    ("dead-letters", "list"),
    ("dead-letters", "replay"),
    ("dead-letters", "discard"),
    ("db", "upgrade"),
)
NEED_DATA = [
    command
    for command in COMMANDS
    if command[0] in {"up", "users", "models", "audit", "dead-letters", "db", "self-test"}
]
HEAVY = (
    "tensorflow",
    "weasyprint",
    "sqlalchemy",
    "pydantic_settings",
    "pynetdicom",
    "numpy",
    "cv2",
)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    # A command sets it from --data; afterwards it must be as it was.
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path / "unused"))
    return CliRunner()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_tells_what_it_does(runner: CliRunner, command: tuple[str, ...]) -> None:
    result = runner.invoke(app, [*command, "--help"])

    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("command", NEED_DATA, ids=" ".join)
def test_every_command_that_needs_the_data_takes_its_folder(
    runner: CliRunner, command: tuple[str, ...]
) -> None:
    assert "--data" in runner.invoke(app, [*command, "--help"]).output


def test_loading_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, countersign.cli; print([m for m in {HEAVY} if m in sys.modules])"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert loaded.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "list"),
        ("audit", "verify"),
        ("dead-letters", "list"),
        ("dead-letters", "discard", "some-id", "--why", "x"),
    ],
)
def test_a_folder_without_an_installation_is_told_and_left_empty(
    runner: CliRunner, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path / "nowhere"

    result = runner.invoke(app, [*arguments, "--data", str(folder)])

    assert result.exit_code == 1
    assert "no installation" in result.output
    assert "countersign up" in result.output
    assert not folder.exists()


def test_a_wrong_setting_is_refused_by_name(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COUNTERSIGN_BROKER_URL", "http://example")

    result = runner.invoke(app, ["up", "--data", str(tmp_path)])

    assert result.exit_code == 2
    assert "COUNTERSIGN_BROKER_URL" in result.output


def test_sending_to_what_is_no_address_tells_the_form(runner: CliRunner) -> None:
    result = runner.invoke(app, ["send", "x.dcm", "--to", "nobody"])

    assert result.exit_code == 1
    assert "AET@HOST:PORT" in result.output


def test_sending_to_nobody_names_every_file(runner: CliRunner) -> None:
    file = str(get_testdata_file("CT_small.dcm", download=False))

    result = runner.invoke(app, ["send", file, "--to", "PACS@127.0.0.1:1"])

    assert result.exit_code == 1
    assert "CT_small.dcm" in result.output
    assert "nobody answers at PACS@127.0.0.1:1" in result.output


def test_a_role_that_is_none_is_refused(runner: CliRunner) -> None:
    result = runner.invoke(app, ["users", "add", "a@b.example", "--role", "surgeon"])

    assert result.exit_code == 2
    assert "pharmacist" in result.output
