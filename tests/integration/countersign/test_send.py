"""Sending to DCMTK's storescp, which is not ours: what arrives is what was in the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from countersign.cli import app
from countersign.send import Address, echo, send, survey
from tests.peers.processes import (
    LOOPBACK,
    ServerProcess,
    accepts_connections,
    find_program,
    free_port,
    require,
    wait_until,
)


def shipped(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


class StoreScp:
    """DCMTK's storescp, keeping bit by bit what it receives in a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        program = require(find_program("storescp"), "storescp", "dcmtk")
        self.received = folder / "received"
        self.received.mkdir()
        self.port = free_port()
        self.address = Address("STORESCP", LOOPBACK, self.port)
        self.process = ServerProcess(
            [program, "-v", "+B", "-od", self.received, *options, str(self.port)],
            log=folder / "storescp.log",
        )


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[StoreScp]:
    scp = StoreScp(tmp_path, "+xa", "-pm")
    scp.process.start()
    scp.process.wait_until_ready(lambda: accepts_connections(scp.port))
    yield scp
    scp.process.kill()


def data_set_bytes(path: Path) -> bytes:
    """Return what follows the File Meta Information."""
    content = path.read_bytes()
    start = 128 + 4 + 12 + int(dcmread(path, stop_before_pixels=True).file_meta[0x00020000].value)
    return content[start:]


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "ExplVR_BigEnd.dcm"]
)
def test_the_data_set_arrives_byte_for_byte_in_its_own_syntax(peer: StoreScp, name: str) -> None:
    outcomes = send(
        survey([shipped(name)]).sendable,
        peer.address,
        calling_ae_title="US",
        on_outcome=lambda _outcome: None,
    )

    assert [outcome.status for outcome in outcomes] == [0]
    [received] = peer.received.iterdir()
    sent_meta = dcmread(shipped(name), stop_before_pixels=True).file_meta
    received_meta = dcmread(received, stop_before_pixels=True).file_meta
    assert received_meta.TransferSyntaxUID == sent_meta.TransferSyntaxUID
    assert data_set_bytes(received) == data_set_bytes(shipped(name))


def test_a_data_set_alone_is_sent_too(peer: StoreScp) -> None:
    outcomes = send(
        survey([shipped("ExplVR_LitEndNoMeta.dcm")]).sendable,
        peer.address,
        calling_ae_title="US",
        on_outcome=lambda _outcome: None,
    )

    assert [outcome.status for outcome in outcomes] == [0]


def test_a_peer_that_is_there_answers_an_echo(peer: StoreScp) -> None:
    assert echo(peer.address, calling_ae_title="US") == ""


def test_a_peer_that_is_not_there_is_told() -> None:
    address = Address("NOBODY", LOOPBACK, free_port())

    assert echo(address, calling_ae_title="US") == f"nobody answers at {address}"


def test_the_command_sends_folders_and_ends_well(peer: StoreScp, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        (folder / name).write_bytes(shipped(name).read_bytes())

    result = CliRunner().invoke(app, ["send", str(folder), "--to", str(peer.address)])

    assert result.exit_code == 0
    assert f"2 of 2 taken by {peer.address}" in result.output
    assert len(list(peer.received.iterdir())) == 2


def test_a_syntax_that_the_peer_does_not_take_is_told(tmp_path: Path) -> None:
    scp = StoreScp(tmp_path, "+xi")
    scp.process.start()
    scp.process.wait_until_ready(lambda: accepts_connections(scp.port))
    files = [str(shipped("JPEG2000.dcm")), str(shipped("MR_small_implicit.dcm"))]

    result = CliRunner().invoke(app, ["send", *files, "--to", str(scp.address)])

    scp.process.kill()
    assert result.exit_code == 1
    assert "JPEG2000.dcm" in result.output
    assert "JPEG 2000" in result.output
    assert "was not accepted" in result.output
    assert "1 of 2 taken" in result.output


def test_a_peer_that_rejects_us_says_why(tmp_path: Path) -> None:
    scp = StoreScp(tmp_path, "--refuse")
    scp.process.start()
    scp.process.wait_until_ready(lambda: accepts_connections(scp.port))

    def rejected() -> bool:
        outcomes = send(
            survey([shipped("CT_small.dcm")]).sendable,
            scp.address,
            calling_ae_title="US",
            on_outcome=lambda _outcome: None,
        )
        return "rejected the association" in outcomes[0].reason

    # It may still be busy with the connection that was to see whether it is there.
    wait_until(rejected, what="a rejection")
    scp.process.kill()
