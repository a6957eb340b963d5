"""In whose name associations are asked for."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from dicom_sender.settings import SenderSettings
from service_runtime.dicom_tls import Reloading, TlsFiles, client_context


@dataclass(frozen=True)
class Caller:
    """Who sends, how patiently, and with which certificate."""

    ae_title: str
    timeout_s: float
    tls: Callable[[], ssl.SSLContext] | None = None
    """Gives the context for the next connection to a destination that wants TLS."""


def caller_of(settings: SenderSettings) -> Caller:
    """Return in whose name associations are asked for.

    Raises
    ------
    BrokenTlsFiles
        A certificate or key is set that cannot be used.
    """
    files = TlsFiles.of(settings)
    tls = None if files is None else Reloading(files, client_context).context
    return Caller(settings.ae_title, settings.pacs_timeout_s, tls)
