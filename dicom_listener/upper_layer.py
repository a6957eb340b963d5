"""pynetdicom's upper layer (PS3.8) without its thread: the association's own thread drives it.

Nothing here polls: a thread blocks until its peer sends, its timer ends, or the process drains.
Negotiation, release, abort and the state machine stay pynetdicom's. P-DATA-TF alone is read here,
and handed on fragment by fragment from one buffer, so that no instance is ever held in memory.
"""

import math
import mmap
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

from dicom_listener.associate_request import AE_TITLES_END, AssociateRequest, ae_titles, decode

if TYPE_CHECKING:
    from pynetdicom.association import Association

BUFFER_BYTES = 256 * 1024
_OTHER_PDU_LIMIT_BYTES = 1024 * 1024
_A_ASSOCIATE_RQ, _P_DATA_TF = 0x01, 0x04
_PDU_HEADER = struct.Struct(">BBL")
_PDV_HEADER = struct.Struct(">LBB")
_ITEM_LENGTH_SIZE = 4
_LINGER_S = 2.0
_LAST_CALL_S = 1.0


class ConnectionEnded(OSError):
    """The peer closed the connection, or sent nothing for longer than it may."""


class TakesFragments(Protocol):
    """What P-DATA-TF is handed to."""

    @property
    def is_amid_data(self) -> bool:
        """Whether fragments are all that is expected next."""

    def on_fragment(self, context_id: int, control: int, fragment: memoryview, left: int) -> None:
        """Take a part of a presentation data value (PS3.8 §9.3.5.1).

        ``control`` is its message control header (PS3.8 §E.2), ``left`` how many bytes of the same
        value are still to come. ``fragment`` is valid until ``release_fragments`` is called.

        Raises
        ------
        ValueError
            The peer breaks PS3.7; the association is to be aborted.
        """

    def release_fragments(self) -> None:
        """Let go of the fragments taken so far: their memory is about to be used again."""


class BufferedSocket(AssociationSocket):  # type: ignore[misc]
    """A connection that is read through one buffer and never in small pieces."""

    def __init__(
        self,
        assoc: "Association",
        client_socket: socket.socket,
        wake: int,
        before_reuse: Callable[[], None],
        message_timeout_s: float,
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._before_reuse = before_reuse
        self._message_timeout_s = message_timeout_s
        self.deadline: float | None = None
        """By when (monotonic) an association has to be asked for, every byte of the request."""
        self.is_draining = False
        # Pages of their own: from the heap they would be given back late, and leave holes in it.
        self._pages = mmap.mmap(-1, BUFFER_BYTES)
        self._view = memoryview(self._pages)
        self._start = self._end = 0
        self._peer = client_socket.fileno()
        self._poll_peer, self._poll = select.poll(), select.poll()
        for poll in (self._poll_peer, self._poll):
            poll.register(self._peer, select.POLLIN)
        self._poll.register(wake, select.POLLIN)
        self._wake = wake

    def shake_hands(self) -> None:
        """Agree on nothing: what is sent goes in the clear."""

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until there is something to read; return whether there is.

        There may be nothing before the time is over, because the process is to drain.
        """
        return self.has_more or self._has_come(timeout_s)

    def _has_come(self, timeout_s: float | None) -> bool:
        if self.socket is None:
            return False
        events = dict(self._poll.poll(None if timeout_s is None else max(0, timeout_s * 1000)))
        if events.pop(self._wake, 0):
            self.is_draining = True
            self._poll.unregister(self._wake)
            if self.deadline is not None and not events:
                # Who has just connected is to hear why not, instead of being cut off.
                self.deadline = min(self.deadline, time.monotonic() + _LAST_CALL_S)
                return self._has_come(self.left_s())
        return bool(events)

    def left_s(self) -> float | None:
        """Return how long it is until the deadline, where there is one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def cut(self) -> None:
        """End the connection, from another thread than the one that serves it."""
        if self.socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def give_back(self) -> None:
        """Give the buffer's memory back, when nothing is read any more."""
        self._start = self._end = 0
        self._view.release()
        with suppress(BufferError):  # a fragment is still held somewhere; it goes with that
            self._pages.close()

    def available(self, at_most: int) -> memoryview:
        """Return 1 to ``at_most`` received bytes, waiting for them; valid until the next call."""
        if self._start == self._end:
            self._fill(0)
        end = min(self._end, self._start + at_most)
        piece = self._view[self._start : end]
        self._start = end
        return piece

    def peek(self, length: int) -> memoryview:
        """Return the next few bytes, waiting for them, without taking them."""
        if self._start + length > BUFFER_BYTES or self._start == self._end:
            self._before_reuse()
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        while self._end - self._start < length:
            self._fill(self._end)
        return self._view[self._start : self._start + length]

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        """Return what the next bytes say, waiting for them, without taking them."""
        if self._end - self._start < form.size:
            self.peek(form.size)
        return form.unpack_from(self._view, self._start)

    @property
    def has_more(self) -> bool:
        """Whether something that was received has not been taken."""
        return self._start < self._end

    def skip(self, length: int) -> None:
        """Take what was peeked at."""
        self._start += length

    def recv(self, nr_bytes: int) -> bytearray:
        """Return ``nr_bytes``, or fewer where the connection ended (pynetdicom's contract)."""
        data = bytearray()
        try:
            while len(data) < nr_bytes:
                data += self.available(nr_bytes - len(data))
        except ConnectionEnded:
            pass
        return data

    def send(self, bytestream: bytes) -> None:
        """Send all of ``bytestream``; a connection that is gone becomes Evt17."""
        try:
            if self.socket is None:
                raise ConnectionEnded
            self._send(bytestream)
        except OSError:
            self.event_queue.put("Evt17")

    def discard_until_closed(self, timeout_s: float) -> None:
        """Read and drop what still comes, so that closing does not reset what was sent last."""
        deadline = time.monotonic() + timeout_s
        try:
            while (left_s := deadline - time.monotonic()) > 0 and self.wait(left_s):
                self.available(BUFFER_BYTES)
        except ConnectionEnded:
            pass

    def _shutdown_socket(self) -> None:
        """Close the connection, also where the peer has reset it."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def _fill(self, at: int) -> None:
        if self.socket is None:
            raise ConnectionEnded
        if at == 0:
            self._before_reuse()
        try:
            received = self._receive(self._view[at:])
        except OSError as error:
            raise ConnectionEnded from error
        if not received:
            raise ConnectionEnded
        if at == 0:
            self._start = 0
        self._end = at + received

    def _receive(self, view: memoryview) -> int:
        if self.deadline is not None and not self._has_come(self.left_s()):
            raise ConnectionEnded
        received: int = self.socket.recv_into(view)
        return received

    def _send(self, data: bytes) -> None:
        self.socket.sendall(data)


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
        self._idle_timer.start()
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
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        elif self.event_queue.empty() and not self._process_recv_primitive():
            if self._wait(timeout_s):
                self._read_pdu_data()
                self._idle_timer.restart()
            elif self.artim_timer.expired:
                self.event_queue.put("Evt18")
            else:
                return False
        while not self.event_queue.empty() and not self._kill_thread:
            self.has_only_data = False
            self.state_machine.do_action(self.event_queue.get(block=False))
        return True

    def _wait(self, timeout_s: float | None) -> bool:
        """Wait for the peer, no longer than ARTIM (PS3.8 §9.1.5) runs."""
        if self.socket is None:
            return False
        timer = self.artim_timer
        if timer.timeout is not None and timer._start_time and not timer._end_time:  # noqa: SLF001
            timeout_s = min(timer.remaining + 0.001, math.inf if timeout_s is None else timeout_s)
        return self.socket.wait(timeout_s)

    def _read_pdu_data(self) -> None:
        """Read one PDU: P-DATA-TF of an established association here, any other by pynetdicom."""
        assert self.socket is not None  # noqa: S101 - it has just been waited for
        try:
            if self.state_machine.current_state == "Sta6" and self._read_data(self.socket):
                return
            pdu_type, _, length = _PDU_HEADER.unpack(self.socket.peek(_PDU_HEADER.size))
            if length > _OTHER_PDU_LIMIT_BYTES:
                self.event_queue.put("Evt19")
            else:
                if pdu_type == _A_ASSOCIATE_RQ and length >= AE_TITLES_END - _PDU_HEADER.size:
                    self.called_ae_title, self.calling_ae_title = ae_titles(
                        self.socket.peek(AE_TITLES_END)
                    )
                super()._read_pdu_data()
        except ConnectionEnded:
            self.event_queue.put("Evt17")
        except ValueError:
            self.event_queue.put("Evt19")

    def _read_data(self, connection: BufferedSocket) -> bool:
        """Read P-DATA-TF as long as that is what comes; return whether any did."""
        while True:
            pdu_type, _, length = connection.unpack(_PDU_HEADER)
            if pdu_type != _P_DATA_TF:
                return self.has_only_data
            connection.skip(_PDU_HEADER.size)
            self._read_p_data(connection, length)
            self.has_only_data = True
            if not (connection.has_more and self._receiver.is_amid_data):
                return True

    def _read_p_data(self, connection: BufferedSocket, left: int) -> None:
        while left:
            item_length, context_id, control = connection.unpack(_PDV_HEADER)
            left -= _ITEM_LENGTH_SIZE + item_length
            if left < 0 or item_length < _PDV_HEADER.size - _ITEM_LENGTH_SIZE:
                raise ValueError("a presentation data value does not fit its PDU")
            connection.skip(_PDV_HEADER.size)
            value_left = item_length - (_PDV_HEADER.size - _ITEM_LENGTH_SIZE)
            if not value_left:
                self._receiver.on_fragment(context_id, control, memoryview(b""), 0)
            while value_left:
                piece = connection.available(value_left)
                value_left -= len(piece)
                self._receiver.on_fragment(context_id, control, piece, value_left)
