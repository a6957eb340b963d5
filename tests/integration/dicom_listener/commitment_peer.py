"""An AE that asks for storage commitment, and hears of the result on an association of its own."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from dicom_listener.storage_commitment import STORAGE_COMMITMENT
from tests.peers.processes import LOOPBACK, free_port


@dataclass
class CommitmentPeer:
    """Accepts associations on which the requestor is the SCP; answers as it is told to."""

    ae_title: str = "CT1"
    port: int = field(default_factory=free_port)
    answers: list[int] = field(default_factory=list)
    """Statuses of the next reports; 0000 when used up."""
    tls: ssl.SSLContext | None = None
    heard: list[tuple[int, Dataset]] = field(default_factory=list)
    """Event Type ID and Event Information of what was acknowledged or refused."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        ae = AE(self.ae_title)
        ae.add_supported_context(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        self._server = ae.start_server(
            (LOOPBACK, self.port),
            block=False,
            ssl_context=self.tls,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)],
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()

    def _on_report(self, event: Any) -> tuple[int, None]:
        with self._lock:
            self.heard.append((event.event_type, event.event_information))
            return (self.answers.pop(0) if self.answers else 0x0000), None
