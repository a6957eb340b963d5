"""pynetdicom's upper layer (PS3.8) without its thread: the association's own thread drives it.

Nothing here polls: a thread blocks until its peer sends, its timer ends, or the process drains.
Negotiation, release, abort and the state machine stay pynetdicom's. P-DATA-TF alone is read by us,
fragment by fragment (`dicom_listener.p_data`), so that no instance is ever held in memory.
"""

import math
import time
from typing import TYPE_CHECKING, Any

from pynetdicom.dul import DULServiceProvider

from dicom_listener.associate_request import AE_TITLES_END, AssociateRequest, ae_titles, decode
from dicom_listener.connection import BufferedSocket, ConnectionEnded
from dicom_listener.p_data import PDU_HEADER, TakesFragments, read_p_data

if TYPE_CHECKING:
    from pynetdicom.association import Association

_OTHER_PDU_LIMIT_BYTES = 1024 * 1024
_A_ASSOCIATE_RQ = 0x01
_LINGER_S = 2.0


class InlineUpperLayer(DULServiceProvider):  # type: ignore[misc]
    """A DUL service provider whose steps are taken by the thread that waits for their outcome."""

    socket: BufferedSocket | None

    def __init__(self, assoc: "Association", receiver: TakesFragments) -> None:
        super().__init__(assoc)
        self._receiver = receiver
        self.called_ae_title = self.calling_ae_title = ""
        """As the request has them, whatever stands there."""
        self.request: AssociateRequest | None = None
        """What was asked for."""
        self.has_only_data = False
        """Whether the last step brought fragments and nothing else."""

    @property
    def is_draining(self) -> bool:
        """Whether the process is to end."""
        return self.socket is not None and self.socket.is_draining

    def start(self) -> None:
        """Begin; there is no thread to start."""
        self.assoc._dul_ready.set()  # noqa: SLF001 - what the reactor's thread does

    def is_alive(self) -> bool:
        """Whether the connection is still served."""
        return not self._kill_thread

    def stop_dul(self) -> bool:
        """Let the peer read what was sent last, for a moment, then close."""
        self._kill_thread = True
        if self.socket is not None:
            if self.state_machine.current_state == "Sta13":
                self.socket.discard_until_closed(_LINGER_S)
            self.socket.close()
        return True

    def send_pdu(self, primitive: object) -> None:
        """Send a primitive before returning."""
        super().send_pdu(primitive)
        while not self.to_provider_queue.empty() and not self._kill_thread:
            self.step(0)

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> object:  # noqa: FBT001, FBT002
        """Return the next primitive of the peer's, taking steps until there is one."""
        connection = self.socket
        if wait and connection is not None:
            if connection.deadline is None and timeout is not None:
                connection.deadline = time.monotonic() + timeout
            while self.to_user_queue.empty() and not self._is_over():
                if not self.step(connection.left_s()):
                    break
            connection.deadline = None
        return super().receive_pdu(wait=False)

    def accept(self, pdu: bytes) -> None:
        """Send an A-ASSOCIATE-AC that is encoded already (PS3.8 §9.2.2, action AE-7)."""
        if self.state_machine.current_state != "Sta3":
            raise RuntimeError("there is no request to accept")
        if self.socket is not None:
            self.socket.send(pdu)
        self.state_machine.transition("Sta6")

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        if bytestream[0] != _A_ASSOCIATE_RQ:
            decoded: tuple[Any, str] = super()._decode_pdu(bytestream)
            return decoded
        self.request = decode(bytes(bytestream))
        return self.request, "Evt6"

    def _is_over(self) -> bool:
        """Whether no further primitive can come: closed, or waiting for the peer to close."""
        return self._kill_thread or self.state_machine.current_state == "Sta13"

    def step(self, timeout_s: float | None) -> bool:
        """Do what is to be done next: send, read one PDU, or wait at most ``timeout_s`` for one.

        Returns false where nothing came in that time, or the process is to drain instead.
        """
        self.has_only_data = False
        artim_left_s = self._artim_left_s()
        if artim_left_s < 0:
            self.event_queue.put("Evt18")
        elif self.event_queue.empty() and not self._process_recv_primitive():
            if self._wait(timeout_s, artim_left_s):
                self._read_pdu_data()
            elif self._artim_left_s() < 0:
                self.event_queue.put("Evt18")
            else:
                return False
        while not self.event_queue.empty() and not self._kill_thread:
            self.has_only_data = False
            self.state_machine.do_action(self.event_queue.get(block=False))
        return True

    def _artim_left_s(self) -> float:
        """Return how long ARTIM (PS3.8 §9.1.5) still runs; for ever where it does not."""
        timer = self.artim_timer
        if timer._end_time or not timer._start_time or timer.timeout is None:  # noqa: SLF001
            return math.inf
        left_s: float = timer.remaining
        return left_s

    def _wait(self, timeout_s: float | None, artim_left_s: float) -> bool:
        """Wait for the peer, no longer than ARTIM runs."""
        if self.socket is None:
            return False
        if artim_left_s != math.inf:
            timeout_s = min(artim_left_s + 0.001, math.inf if timeout_s is None else timeout_s)
        return self.socket.wait(timeout_s)

    def _read_pdu_data(self) -> None:
        """Read one PDU: P-DATA-TF of an established association here, any other by pynetdicom."""
        assert self.socket is not None  # noqa: S101 - it has just been waited for
        try:
            if self.state_machine.current_state == "Sta6":
                self.has_only_data = read_p_data(self.socket, self._receiver)
                if self.has_only_data:
                    return
            pdu_type, _, length = PDU_HEADER.unpack(self.socket.peek(PDU_HEADER.size))
            if length > _OTHER_PDU_LIMIT_BYTES:
                self.event_queue.put("Evt19")
            else:
                if pdu_type == _A_ASSOCIATE_RQ and length >= AE_TITLES_END - PDU_HEADER.size:
                    self.called_ae_title, self.calling_ae_title = ae_titles(
                        self.socket.peek(AE_TITLES_END)
                    )
                super()._read_pdu_data()
        except ConnectionEnded:
            self.event_queue.put("Evt17")
        except ValueError:
            self.event_queue.put("Evt19")
