"""A connection that is read through one buffer, or, where much comes, straight to where it goes."""

import mmap
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import AssociationSocket

from dicom_listener.presentation_data import HEADERS

if TYPE_CHECKING:
    from pynetdicom.association import Association

BUFFER_BYTES = 512 * 1024
_READ_BYTES = 256 * 1024
LESS_BYTES = 16 * 1024
"""What is read at a time where the rest is left to `BufferedSocket.receive_values`."""
_HEADER_BYTES = HEADERS.size
"""Of a P-DATA-TF and of the one presentation data value in it (PS3.8 §9.3.5)."""
_MOST_HEADERS = 5
_LAST_CALL_S = 1.0


class ConnectionEnded(OSError):
    """The peer closed the connection, or sent nothing for longer than it may."""


class BufferedSocket(AssociationSocket):  # type: ignore[misc]
    """A connection that is read through one buffer and never in small pieces."""

    receives_values = True
    """Whether `receive_values` is there."""

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
        self.reads_at_most_bytes = _READ_BYTES
        """At a time, into the buffer."""
        self._headers = [memoryview(bytearray(_HEADER_BYTES)) for _ in range(_MOST_HEADERS)]
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

    def receive_values(
        self, room: memoryview, left: int, size: int, header: bytes
    ) -> tuple[int, int]:
        """Receive what is left of a value into ``room``, and those behind it that are like it.

        A value like it has the same ``size`` and the same ``header`` before it, which is left out;
        without a header nothing is like it. What comes behind another header is put into the
        buffer, where nothing else may be.

        Return how many bytes of ``room`` are filled, and how many of the last value are left.

        Raises
        ------
        ConnectionEnded
            Nothing came any more.
        """
        views = [room[:left]]
        if header and left <= len(room):
            views += self._views_behind(room[left:], size)
        received = self._receive_into(views)
        filled = min(received, left, len(room))
        left -= filled
        received -= filled
        for number in range(1, len(views), 2):
            if not received:
                break
            is_followed = number + 1 < len(views)
            if received < _HEADER_BYTES or not is_followed or views[number] != header:
                self._put_back(views[number:], received)
                break
            of_next = min(received - _HEADER_BYTES, len(views[number + 1]))
            received -= _HEADER_BYTES + of_next
            filled += of_next
            left = size - of_next
        return filled, left

    def _views_behind(self, room: memoryview, size: int) -> Iterator[memoryview]:
        """Give where headers are to be put, and between them values, into ``room``.

        They are no larger than the buffer: all of it may have to be put back there. The last value
        ends where the room does.
        """
        left = BUFFER_BYTES
        for header in self._headers:
            if left < _HEADER_BYTES:
                return
            yield header
            left -= _HEADER_BYTES + size
            if left < 0 or not room:
                return
            yield room[:size]
            if len(room) < size:
                return
            room = room[size:]

    def _receive_into(self, views: Sequence[memoryview]) -> int:
        if self.socket is None:
            raise ConnectionEnded
        try:
            received: int = self.socket.recvmsg_into(views)[0]
        except OSError as error:
            raise ConnectionEnded from error
        if not received:
            raise ConnectionEnded
        return received

    def _put_back(self, views: Sequence[memoryview], length: int) -> None:
        """Have the first ``length`` bytes of ``views`` read next."""
        self._start = self._end = 0
        for view in views:
            part = view[: length - self._end]
            self._view[self._end : self._end + len(part)] = part
            self._end += len(part)

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
            received = self._receive(self._view[at : at + self.reads_at_most_bytes])
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
