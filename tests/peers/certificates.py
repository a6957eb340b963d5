"""Certificates for DICOM over TLS, made by the openssl command as an administrator would."""

from __future__ import annotations

import subprocess
from pathlib import Path

from service_runtime.dicom_tls import TlsFiles
from tests.peers.processes import find_program, require

_KEYS = {
    "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "rsa": ["-newkey", "rsa:2048"],
}


class CertificateAuthority:
    """An authority of a hospital's own, in a folder."""

    def __init__(self, folder: Path, name: str = "authority", key: str = "ec") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._openssl = require(find_program("openssl"), "openssl", "openssl")
        self.certificate = folder / f"{name}.crt"
        self._key = folder / f"{name}.key"
        self._request(
            name, key, "-days", "2", "-out", self.certificate, "-keyout", self._key, "-x509"
        )

    def issue(self, name: str, *, key: str = "ec", days: int = 2) -> TlsFiles:
        """Return a certificate, its key, and this authority as the one to trust."""
        files = TlsFiles(
            self._folder / f"{name}.crt", self._folder / f"{name}.key", self.certificate
        )
        request = self._folder / f"{name}.csr"
        self._request(name, key, "-out", request, "-keyout", files.key)
        signed = ["x509", "-req", "-in", request, "-out", files.certificate, "-days", str(days)]
        self._run(*signed, "-CA", self.certificate, "-CAkey", self._key)
        return files

    def _request(self, name: str, key: str, *arguments: str | Path) -> None:
        self._run("req", *_KEYS[key], "-noenc", "-subj", f"/CN={name}", *arguments)

    def _run(self, *arguments: str | Path) -> None:
        subprocess.run([self._openssl, *arguments], check=True, capture_output=True, timeout=120)
