"""Programs of others as destinations: DICOM TLS, the probe, and an echo."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dicom_sender import association
from dicom_sender.association import PacsUnavailable
from dicom_sender.caller import Caller
from dicom_sender.handlers import Sender
from dicom_sender.probe import echo, probe
from message_contracts.delivery import AttachmentDelivered
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from service_runtime.dicom_tls import TlsFiles, client_context
from tests.integration.dicom_sender.a_pacs import a_pacs, answers
from tests.peers.certificates import CertificateAuthority
from tests.peers.orthanc import Orthanc
from tests.peers.processes import LOOPBACK, ServerProcess, accepts_connections, free_port


@pytest.fixture(autouse=True)
def there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the reason be looked for though the machine was slow to find that there is one."""
    monkeypatch.setattr(association, "_DIAGNOSIS_TIMEOUT_S", 60.0)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path / "authority")


@pytest.fixture
def storescp_tls(
    authority: CertificateAuthority, storescp: Callable[..., tuple[int, Path]]
) -> tuple[int, Path]:
    """Run DCMTK's storescp that wants a certificate of the authority's."""
    files = authority.issue("pacs", key="rsa")
    return storescp(
        *("+tls", files.key, files.certificate),
        *("--add-cert-file", files.authorities, "--require-peer-cert"),
    )


def caller(files: TlsFiles) -> Caller:
    return Caller("COUNTERSIGN", timeout_s=30, tls=partial(client_context, files))


def at(port: int, **more: Any) -> PacsDestination:
    more = {"ae_title": "STORESCP", "tls": True, **more}
    return PacsDestination(name="archive", host=LOOPBACK, port=port, **more)


def test_results_go_to_storescp_by_tls(
    storescp_tls: tuple[int, Path],
    authority: CertificateAuthority,
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
) -> None:
    port, folder = storescp_tls
    ours = caller(authority.issue("countersign"))

    effect = sender_to(port, "STORESCP", tls=True, caller=ours)(request_of)

    assert isinstance(answers(database, effect)[0], AttachmentDelivered)
    assert len(list(folder.iterdir())) == 2


def test_results_go_to_orthanc_by_tls(
    authority: CertificateAuthority,
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
) -> None:
    ours = caller(authority.issue("countersign"))

    with Orthanc(tls=authority.issue("pacs", key="rsa")) as orthanc:
        effect = sender_to(orthanc.dicom_port, "ORTHANC", tls=True, caller=ours)(request_of)

        assert isinstance(answers(database, effect)[0], AttachmentDelivered)
        assert len(orthanc.find("Instance")) == 2
        with pytest.raises(PacsUnavailable, match="nobody answers for archive"):
            echo(at(orthanc.dicom_port, ae_title="ORTHANC", tls=False), Caller("COUNTERSIGN", 30))


def test_a_pacs_of_another_authority_is_told_apart(
    storescp_tls: tuple[int, Path], tmp_path: Path
) -> None:
    stranger = CertificateAuthority(tmp_path / "stranger").issue("countersign")

    with pytest.raises(PacsUnavailable, match="archive: TLS: its certificate is not accepted"):
        echo(at(storescp_tls[0]), caller(stranger))


def test_a_pacs_that_does_not_accept_our_certificate_is_told_apart(
    storescp_tls: tuple[int, Path], authority: CertificateAuthority, tmp_path: Path
) -> None:
    stranger = CertificateAuthority(tmp_path / "stranger").issue("countersign")
    half = TlsFiles(stranger.certificate, stranger.key, authority.certificate)

    with pytest.raises(PacsUnavailable, match="nobody answers for archive: TLS: "):
        echo(at(storescp_tls[0]), caller(half))


def test_tls_to_a_plain_port_fails_and_says_so(
    storescp: Callable[..., tuple[int, Path]], authority: CertificateAuthority
) -> None:
    with pytest.raises(PacsUnavailable, match="nobody answers for archive"):
        echo(at(storescp()[0]), caller(authority.issue("countersign")))


def test_an_echo_is_answered(orthanc: Orthanc) -> None:
    plain = at(orthanc.dicom_port, ae_title=orthanc.ae_title, tls=False)

    assert echo(plain, Caller("COUNTERSIGN", 10)) == 0


@pytest.mark.parametrize(
    ("host", "reason"),
    [(LOOPBACK, "Connection refused"), ("no-such-host.invalid", "its host name is not known")],
)
def test_an_echo_says_why_there_is_no_answer(host: str, reason: str) -> None:
    nowhere = PacsDestination(name="archive", ae_title="X", host=host, port=free_port())

    with pytest.raises(PacsUnavailable, match=reason):
        echo(nowhere, Caller("COUNTERSIGN", 30))


def test_the_probe_lists_what_is_taken_and_sends_nothing(
    storescp: Callable[..., tuple[int, Path]],
) -> None:
    port, folder = storescp()

    found = {
        each.sop_class: each.transfer_syntaxes
        for each in probe(at(port, tls=False), Caller("COUNTERSIGN", 10))
    }

    assert found["CT Image Storage"] == (
        "Implicit VR Little Endian",
        "Explicit VR Little Endian",
    )
    assert "Verification SOP Class" in found
    assert "Storage Commitment Push Model SOP Class" not in found
    assert list(folder.iterdir()) == []


def test_the_probe_of_a_pacs_that_takes_nothing_is_empty() -> None:
    with a_pacs(lambda _event: 0, sop_classes=["1.2.3"]) as port:
        assert probe(at(port, ae_title="ORTHANC", tls=False), Caller("COUNTERSIGN", 10)) == []


def test_results_go_to_pynetdicoms_storescp(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database, tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    server = ServerProcess(
        [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-od", folder, "-ba", LOOPBACK],
        log=tmp_path / "storescp.log",
    )
    server.start()
    try:
        server.wait_until_ready(lambda: accepts_connections(port))

        effect = sender_to(port, "STORESCP")(request_of)

        assert isinstance(answers(database, effect)[0], AttachmentDelivered)
        assert len(list(folder.iterdir())) == 2
    finally:
        server.stop()
