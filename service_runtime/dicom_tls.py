"""DICOM over TLS, for whoever receives and whoever sends (PS3.15 §B.12).

The BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile: TLS 1.2 with the cipher suites
that RFC 9325 §4.2 recommends, TLS 1.3 where both have it, and nothing older. Peers that speak the
retired BCP 195 profiles (PS3.15 §B.9, §B.10) offer these suites too. Both sides show a certificate,
and its chain up to an authority of ours is always checked. The host name is not: a DICOM peer is
known by its AE title and an address that is often bare, certificates are made out to whatever the
maker chose, and the authorities are the site's own choice of whom it trusts.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Lock

import structlog

from service_runtime.errors import PermanentError
from service_runtime.settings import ENV_PREFIX, DicomTlsSettings

CIPHER_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""Of TLS 1.2, by OpenSSL's names (RFC 9325 §4.2); those of TLS 1.3 are all allowed."""

log = structlog.get_logger()


class BrokenTlsFiles(PermanentError):
    """A certificate, key or authority cannot be used; the reason names the setting."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The three PEM files that both sides of a connection need."""

    certificate: Path
    """Our certificate, with the chain behind it."""
    key: Path
    """Its private key, not encrypted."""
    authorities: Path
    """Whose certificates peers must show."""

    @classmethod
    def of(cls, settings: DicomTlsSettings) -> TlsFiles | None:
        """Return the files that are set; none where DICOM goes in the clear."""
        certificate = settings.dicom_tls_certificate
        key, authorities = settings.dicom_tls_key, settings.dicom_tls_authorities
        if certificate is None or key is None or authorities is None:
            return None
        return cls(certificate, key, authorities)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of who accepts associations; the peer has to show a certificate.

    Raises
    ------
    BrokenTlsFiles
        A file cannot be read, is not what it should be, or does not go with the others.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    # A session that is resumed would be checked against the authorities of its beginning.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of who requests associations; the acceptor's certificate is checked.

    Raises
    ------
    BrokenTlsFiles
        A file cannot be read, is not what it should be, or does not go with the others.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


class Reloading:
    """Gives the context that the files make now; they are loaded anew when one has changed.

    Files that cannot be used, such as a certificate whose key has not been copied yet, leave the
    context as it was, and are told of once. Any number of threads may ask.

    Raises
    ------
    BrokenTlsFiles
        The files cannot be used at the start already.
    """

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._lock = Lock()
        self._seen = _signature(files)
        self._context = make(files)

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection."""
        with self._lock:
            now = _signature(self._files)
            if now != self._seen:
                self._seen = now
                self._load()
            return self._context

    def _load(self) -> None:
        try:
            self._context = self._make(self._files)
        except BrokenTlsFiles as error:
            log.error("dicom_tls.not_reloaded", error=str(error))  # noqa: TRY400 - it says all
        else:
            log.info("dicom_tls.reloaded")


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(CIPHER_SUITES))
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    for name, path in (
        ("CERTIFICATE", files.certificate),
        ("KEY", files.key),
        ("AUTHORITIES", files.authorities),
    ):
        try:
            path.open("rb").close()
        except OSError as error:
            raise BrokenTlsFiles(f"{_setting(name)}: cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, OSError, _Encrypted) as error:
        raise BrokenTlsFiles(
            f"{_setting('CERTIFICATE')}, {_setting('KEY')}: {_why(error)}"
        ) from None
    try:
        context.load_verify_locations(files.authorities)
    except (ssl.SSLError, OSError):
        raise BrokenTlsFiles(f"{_setting('AUTHORITIES')}: no certificate in PEM") from None
    return context


class _Encrypted(Exception):
    """OpenSSL asks for the key's password; left alone it would ask at a terminal."""


def _no_password() -> str:
    raise _Encrypted


def _why(error: Exception) -> str:
    if isinstance(error, _Encrypted):
        return "the key is encrypted: give one that is not, readable by this service alone"
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return "the key is another certificate's"
    return "not a certificate and its key in PEM, or too weak"


def _setting(name: str) -> str:
    return f"{ENV_PREFIX}DICOM_TLS_{name}"


def _signature(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what changes when a file is written, or another is put in its place."""
    return tuple(_stamp(path) for path in astuple(files))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
