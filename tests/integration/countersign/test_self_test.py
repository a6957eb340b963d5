"""``countersign self-test`` against a peer that is there, and one that is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from countersign.cli import app
from tests.integration.countersign.test_send import StoreScp
from tests.peers.processes import LOOPBACK, accepts_connections, free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    models = tmp_path / "models"
    models.mkdir()
    monkeypatch.setenv("COUNTERSIGN_MODELS_DIR", str(models))
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path / "unused"))
    monkeypatch.setenv("COUNTERSIGN_DICOM_PORT", str(free_port()))
    monkeypatch.setenv("COUNTERSIGN_HTTP_PORT", str(free_port()))
    monkeypatch.setenv("COUNTERSIGN_DICOMWEB_PORT", str(free_port()))
    return tmp_path


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[StoreScp]:
    scp = StoreScp(tmp_path)
    scp.process.start()
    scp.process.wait_until_ready(lambda: accepts_connections(scp.port))
    yield scp
    scp.process.kill()


def test_every_line_says_what_was_found(environment: Path, peer: StoreScp) -> None:
    data = environment / "data"

    result = CliRunner().invoke(app, ["self-test", "--data", str(data), "--to", str(peer.address)])

    lines = result.output.splitlines()
    told = {line.split(":")[0].split(maxsplit=1)[1] for line in lines if line.startswith("ok ")}
    assert {"data folder", "decoders", "TensorFlow", "PDF and fonts", "association"} <= told
    assert len(list(peer.received.iterdir())) == 1
    # There is no model in the folder, which is a fault, and told with its remedy.
    assert result.exit_code == 1
    assert "FAILED  models" in result.output
    assert "remedy: set COUNTERSIGN_MODELS_DIR" in result.output
    assert list(data.iterdir()) == []


def test_a_peer_that_does_not_answer_fails_with_a_remedy(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What takes long is the other test's.
    monkeypatch.setattr("countersign.self_test._program", lambda _code, _remedy: "left out")
    address = f"NOBODY@{LOOPBACK}:{free_port()}"

    result = CliRunner().invoke(app, ["self-test", "--to", address])

    assert result.exit_code == 1
    assert f"FAILED  association: nobody answers at {address}" in result.output
    assert "remedy: is the listener" in result.output


def test_the_data_folder_that_it_makes_is_its_owners_only(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("countersign.self_test._program", lambda _code, _remedy: "left out")

    CliRunner().invoke(app, ["self-test", "--to", f"NOBODY@{LOOPBACK}:{free_port()}"])

    assert (environment / "unused").stat().st_mode & 0o077 == 0
