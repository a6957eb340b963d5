"""Contexts from files: what is refused, what is negotiated, and what a changed file changes."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from service_runtime.dicom_tls import (
    CIPHER_SUITES,
    BrokenTlsFiles,
    Reloading,
    TlsFiles,
    client_context,
    server_context,
)
from tests.peers.certificates import CertificateAuthority
from tests.peers.processes import (
    LOOPBACK,
    ServerProcess,
    accepts_connections,
    find_program,
    free_port,
    require,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def listener_files(authority: CertificateAuthority) -> TlsFiles:
    return authority.issue("listener")


@pytest.fixture(scope="module")
def sender_files(authority: CertificateAuthority) -> TlsFiles:
    return authority.issue("sender", key="rsa")


@pytest.fixture
def own_files(listener_files: TlsFiles, tmp_path: Path) -> TlsFiles:
    """Copy the listener's files, to be changed."""
    copies = [
        Path(shutil.copy(path, tmp_path))
        for path in (listener_files.certificate, listener_files.key, listener_files.authorities)
    ]
    return TlsFiles(*copies)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """Connect one context to the other; return the version agreed on, or raise what went wrong."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(60)

    def accept() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                connection.sendall(b"!")
        except OSError:
            theirs.close()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        with client.wrap_socket(ours) as connection:
            # In TLS 1.3 the client learns of a refused certificate only when it reads.
            assert connection.recv(1) == b"!"
            return connection.version()
    finally:
        thread.join(10)


def anyone(**changes: object) -> ssl.SSLContext:
    """Return a client that checks nothing and shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in changes.items():
        setattr(context, name, value)
    return context


def test_both_sides_show_certificates_of_the_authority(
    listener_files: TlsFiles, sender_files: TlsFiles
) -> None:
    version = shake_hands(server_context(listener_files), client_context(sender_files))

    assert version == "TLSv1.3"


def test_a_peer_without_a_certificate_is_refused(listener_files: TlsFiles) -> None:
    with pytest.raises((OSError, AssertionError)):
        shake_hands(server_context(listener_files), anyone())


def test_a_peer_of_another_authority_is_refused(listener_files: TlsFiles, tmp_path: Path) -> None:
    stranger = CertificateAuthority(tmp_path / "other").issue("stranger")
    believing = client_context(
        TlsFiles(stranger.certificate, stranger.key, listener_files.authorities)
    )

    with pytest.raises((OSError, AssertionError)):
        shake_hands(server_context(listener_files), believing)


def test_a_listener_of_another_authority_is_not_believed(
    sender_files: TlsFiles, tmp_path: Path
) -> None:
    stranger = CertificateAuthority(tmp_path / "other").issue("stranger")
    server = server_context(TlsFiles(stranger.certificate, stranger.key, sender_files.authorities))

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client_context(sender_files))


def test_nothing_older_than_tls_1_2_is_spoken(
    listener_files: TlsFiles, sender_files: TlsFiles
) -> None:
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        old = anyone(maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.load_cert_chain(sender_files.certificate, sender_files.key)

    with pytest.raises(ssl.SSLError):
        shake_hands(server_context(listener_files), old)


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_a_suite_that_is_not_of_the_profile_is_not_negotiated(
    listener_files: TlsFiles, sender_files: TlsFiles, suite: str
) -> None:
    other = anyone(maximum_version=ssl.TLSVersion.TLSv1_2)
    other.set_ciphers(suite)
    other.load_cert_chain(sender_files.certificate, sender_files.key)

    with pytest.raises(ssl.SSLError):
        shake_hands(server_context(listener_files), other)


def test_each_suite_of_the_profile_is_negotiated(
    authority: CertificateAuthority, sender_files: TlsFiles
) -> None:
    both = {"ECDSA": authority.issue("with-ec"), "RSA": authority.issue("with-rsa", key="rsa")}
    for suite in CIPHER_SUITES:
        client = client_context(sender_files)
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers(suite)
        files = both["ECDSA" if "ECDSA" in suite else "RSA"]

        assert shake_hands(server_context(files), client) == "TLSv1.2"


def truncate(files: TlsFiles) -> None:
    files.certificate.write_text("-----BEGIN CERTIFICATE-----\n")


def no_authority(files: TlsFiles) -> None:
    files.authorities.write_text("nothing\n")


def no_key(files: TlsFiles) -> None:
    files.key.unlink()


def other_key(files: TlsFiles) -> None:
    other = CertificateAuthority(files.key.parent / "other").issue("other")
    shutil.copy(other.key, files.key)


def encrypted_key(files: TlsFiles) -> None:
    command = ["openssl", "pkey", "-in", files.key, "-aes256", "-passout", "pass:x"]
    encrypted = subprocess.run(command, check=True, capture_output=True).stdout
    files.key.write_bytes(encrypted)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (truncate, "COUNTERSIGN_DICOM_TLS_CERTIFICATE, COUNTERSIGN_DICOM_TLS_KEY: not a cert"),
        (no_authority, "COUNTERSIGN_DICOM_TLS_AUTHORITIES: no certificate in PEM"),
        (no_key, "COUNTERSIGN_DICOM_TLS_KEY: cannot be read: No such file or directory"),
        (other_key, "the key is another certificate's"),
        (encrypted_key, "the key is encrypted"),
    ],
)
@pytest.mark.parametrize("make", [server_context, client_context])
def test_files_that_cannot_be_used_are_named(
    own_files: TlsFiles,
    break_it: Callable[[TlsFiles], None],
    says: str,
    make: Callable[[TlsFiles], ssl.SSLContext],
) -> None:
    break_it(own_files)

    with pytest.raises(BrokenTlsFiles, match=says):
        make(own_files)


def test_a_changed_certificate_is_shown_from_then_on(
    own_files: TlsFiles, authority: CertificateAuthority
) -> None:
    contexts = Reloading(own_files, server_context)
    before = contexts.context()
    new = authority.issue("new")

    # One file at a time, as files are copied: between them they do not go together.
    shutil.copy(new.certificate, own_files.certificate)
    between = contexts.context()
    shutil.copy(new.key, own_files.key)
    after = contexts.context()

    assert between is before
    assert after is not before
    assert contexts.context() is after


def test_a_file_put_in_the_place_of_another_is_noticed(own_files: TlsFiles) -> None:
    contexts = Reloading(own_files, client_context)
    before = contexts.context()
    replacement = own_files.certificate.with_suffix(".new")
    shutil.copy2(own_files.certificate, replacement)

    replacement.replace(own_files.certificate)

    assert contexts.context() is not before


def test_an_authority_that_has_gone_does_not_end_what_works(own_files: TlsFiles) -> None:
    contexts = Reloading(own_files, server_context)
    before = contexts.context()

    own_files.authorities.unlink()

    assert contexts.context() is before


@pytest.fixture(params=["+px", "+py", "+pz"], ids=["BCP 195", "non-downgrading", "extended"])
def storescp_port(
    request: pytest.FixtureRequest, authority: CertificateAuthority, tmp_path: Path
) -> Iterator[int]:
    """Start DCMTK's storescp, which shows and asks for a certificate."""
    files = authority.issue("archive", key="rsa")
    port = free_port()
    storescp = require(find_program("storescp"), "storescp", "dcmtk")
    tls = ["+tls", files.key, files.certificate, "+cf", files.authorities, request.param]
    command = [storescp, *map(str, tls), "-od", str(tmp_path), str(port)]
    server = ServerProcess(command, log=tmp_path / "storescp.log")
    server.start()
    server.wait_until_ready(lambda: accepts_connections(port))
    yield port
    server.kill()


def test_storescp_of_each_profile_answers_us(storescp_port: int, sender_files: TlsFiles) -> None:
    ae = AE("COUNTERSIGN")
    ae.add_requested_context(Verification)

    association = ae.associate(
        LOOPBACK, storescp_port, tls_args=(client_context(sender_files), None)
    )
    status = association.send_c_echo().Status
    association.release()

    assert status == 0x0000
