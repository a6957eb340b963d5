"""DICOM over TLS, spoken with DCMTK, pynetdicom and whoever does not speak it."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification

from imaging_store.schema.ingest import instance
from service_runtime.dicom_tls import TlsFiles, client_context
from tests.conftest import create_tables
from tests.integration.dicom_listener.listener import Listener, a_slice, associate
from tests.peers.certificates import CertificateAuthority
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.processes import (
    LOOPBACK,
    accepts_connections,
    find_program,
    free_port,
    require,
    wait_until,
)
from tests.peers.raw_scu import associate_rq

# pynetdicom as requestor leaves its socket open when the peer resets it
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

EXPLICIT = "1.2.840.10008.1.2.1"
PROFILES = {"BCP 195": "+px", "non-downgrading": "+py", "extended": "+pz"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"), key="rsa")


@pytest.fixture(scope="module")
def modality(authority: CertificateAuthority) -> TlsFiles:
    return authority.issue("modality", key="rsa")


class Secured:
    """A listener with a TLS port, and the files it has for it."""

    def __init__(self, listener: Listener, port: int, files: TlsFiles) -> None:
        self.listener, self.port, self.files = listener, port, files


def tls_settings(files: TlsFiles, port: int) -> dict[str, object]:
    return {
        "dicom_tls_port": port,
        "dicom_tls_certificate": files.certificate,
        "dicom_tls_key": files.key,
        "dicom_tls_authorities": files.authorities,
    }


def own(files: TlsFiles, folder: Path) -> TlsFiles:
    """Copy files, to be changed."""
    folder.mkdir(exist_ok=True)
    return TlsFiles(
        *(
            Path(shutil.copy(path, folder))
            for path in (files.certificate, files.key, files.authorities)
        )
    )


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, authority: CertificateAuthority
) -> Iterator[Secured]:
    """Start the listener that tests of one handshake share."""
    folder = tmp_path_factory.mktemp("secured")
    url = f"sqlite:///{folder}/secured.sqlite3"
    create_tables(url)
    files = own(authority.issue("listener", key="rsa"), folder / "tls")
    port = free_port()
    with Listener(folder / "data", url, **tls_settings(files, port)) as listener:
        yield Secured(listener, port, files)


@pytest.fixture(scope="module")
def impatient(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Start one that soon cuts off who does not ask for an association."""
    port = free_port()
    with Listener(
        tmp_path_factory.mktemp("impatient"),
        secured.listener.database_url,
        acse_timeout_s=4,
        **tls_settings(secured.files, port),
    ) as listener:
        yield Secured(listener, port, secured.files)


def dcmtk(program: str, files: TlsFiles, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = require(find_program(program), program, "dcmtk")
    tls = ["+tls", files.key, files.certificate, "+cf", files.authorities, "-aec", "COUNTERSIGN"]
    return subprocess.run(
        list(map(str, [path, *tls, *arguments])),
        capture_output=True,
        text=True,
        timeout=60,
        env={"TCP_NODELAY": "1", "PATH": "/usr/bin:/bin"},
        check=False,
    )


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_echoscu_of_each_profile_is_answered(
    secured: Secured, modality: TlsFiles, profile: str
) -> None:
    echo = dcmtk("echoscu", modality, "-v", profile, LOOPBACK, secured.port)

    assert echo.returncode == 0, echo.stderr
    assert "Received Echo Response (Success)" in echo.stderr + echo.stdout


def test_storescu_is_answered_and_what_it_sent_is_kept(
    secured: Secured, modality: TlsFiles, tmp_path: Path
) -> None:
    ds = a_slice()
    # Not a multiple of anything: many records, and one that is not full.
    ds.PixelData = os.urandom(3_000_002)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    paths = []
    for number in range(3):
        ds.SOPInstanceUID = f"{ds.StudyInstanceUID[:50]}.{number}"
        paths.append(tmp_path / f"{number}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)

    sent = dcmtk("storescu", modality, "-v", LOOPBACK, secured.port, *paths)

    assert sent.returncode == 0, sent.stderr
    kept = [
        row
        for row in secured.listener.rows(instance)
        if row.study_instance_uid == ds.StudyInstanceUID
    ]
    assert len(kept) == 3
    for row in kept:
        assert secured.listener.store.read(row.key).endswith(ds.PixelData)


def test_pynetdicom_is_answered(secured: Secured, modality: TlsFiles) -> None:
    ae = AE("MODALITY")
    ae.add_requested_context(Verification)
    ae.add_requested_context(CTImageStorage, EXPLICIT)

    association = ae.associate(
        LOOPBACK, secured.port, ae_title="COUNTERSIGN", tls_args=(client_context(modality), None)
    )
    statuses = [association.send_c_echo().Status]
    ds = a_slice()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    statuses += [association.send_c_store(ds).Status for _ in range(3)]
    association.release()

    assert statuses == [0x0000] * 4


def test_the_clear_port_is_still_there(secured: Secured) -> None:
    assert associate(secured.listener.port, (Verification, EXPLICIT)).is_established


def test_what_orthanc_sends_is_kept(secured: Secured, authority: CertificateAuthority) -> None:
    ds = a_slice()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)

    with Orthanc(tls=authority.issue("orthanc", key="rsa")) as orthanc:
        orthanc.add_modality("countersign", Modality("COUNTERSIGN", secured.port, tls=True))
        orthanc.upload(file.getvalue())
        orthanc.send_study(ds.StudyInstanceUID, "countersign")

    kept = {row.sop_instance_uid for row in secured.listener.rows(instance)}
    assert ds.SOPInstanceUID in kept


def test_a_peer_of_another_authority_is_not_let_in_and_the_log_says_why(
    secured: Secured, tmp_path: Path
) -> None:
    stranger = CertificateAuthority(tmp_path, "strange", key="rsa").issue("stranger", key="rsa")
    believing = TlsFiles(stranger.certificate, stranger.key, secured.files.authorities)

    echo = dcmtk("echoscu", believing, "-v", LOOPBACK, secured.port)

    assert echo.returncode != 0
    wait_until(
        lambda: '"reason": "CERTIFICATE_VERIFY_FAILED"' in secured.listener.log,
        what="the reason",
    )


def test_a_peer_without_a_certificate_is_not_let_in(secured: Secured) -> None:
    echoscu = require(find_program("echoscu"), "echoscu", "dcmtk")
    command = [echoscu, "+tla", "+cf", secured.files.authorities, "-aec", "COUNTERSIGN"]

    echo = subprocess.run(
        [*command, LOOPBACK, str(secured.port)], capture_output=True, timeout=30, check=False
    )

    assert echo.returncode != 0


def test_who_does_not_speak_tls_is_sent_away(secured: Secured) -> None:
    with socket.create_connection((LOOPBACK, secured.port), timeout=60) as connection:
        connection.sendall(associate_rq([(Verification, EXPLICIT)]))

        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk

    assert answer[:1] in {b"", b"\x15"}  # an alert, at most


def test_a_handshake_has_to_end_in_time(impatient: Secured, modality: TlsFiles) -> None:
    context = client_context(modality)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()

    with socket.create_connection((LOOPBACK, impatient.port), timeout=60) as connection:
        connection.sendall(outgoing.read()[:40])
        assert connection.recv(1) == b""


def test_silence_after_the_handshake_ends_in_time(impatient: Secured, modality: TlsFiles) -> None:
    with (
        socket.create_connection((LOOPBACK, impatient.port), timeout=60) as plain,
        client_context(modality).wrap_socket(plain) as connection,
    ):
        assert connection.recv(1) == b""


def certificate_of(port: int, files: TlsFiles) -> bytes | None:
    with (
        socket.create_connection((LOOPBACK, port), timeout=60) as plain,
        client_context(files).wrap_socket(plain) as connection,
    ):
        return connection.getpeercert(binary_form=True)


def test_a_new_certificate_is_shown_without_a_restart(
    secured: Secured, authority: CertificateAuthority, modality: TlsFiles
) -> None:
    before = {certificate_of(secured.port, modality) for _ in range(4)}
    new = authority.issue("renewed", key="rsa")

    shutil.copy(new.certificate, secured.files.certificate)
    between = {certificate_of(secured.port, modality) for _ in range(4)}
    shutil.copy(new.key, secured.files.key)
    after = {certificate_of(secured.port, modality) for _ in range(4)}

    renewed = ssl.PEM_cert_to_DER_cert(new.certificate.read_text())
    assert between == before
    assert after == {renewed} != before
    assert "dicom_tls.not_reloaded" in secured.listener.log
    assert "dicom_tls.reloaded" in secured.listener.log


def test_tls_only_listens_on_nothing_else(
    start_listener: Callable[..., Listener], authority: CertificateAuthority, modality: TlsFiles
) -> None:
    port = free_port()
    listener = start_listener(**tls_settings(authority.issue("only"), port), dicom_plain=False)

    echo = dcmtk("echoscu", modality, LOOPBACK, port)

    assert echo.returncode == 0, echo.stderr
    assert not accepts_connections(listener.port)
