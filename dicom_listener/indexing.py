"""The process that enters what all receiving processes receive.

Receiving processes commit nothing by themselves: they would queue for the database, one instance a
commit. Each sends its arrivals here, in groups; whatever has come while the last commit was under
way shares the next. Where this process dies, they send again what they have no answer for: to enter
an arrival twice changes nothing. Where one of them dies, another takes its place, and what the dead
one had answered for and not sent yet is found in the store.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import structlog

from dicom_listener.index import Entry, OwnIndex
from dicom_listener.index_messages import MOST_BYTES, answers_message, group_of
from service_runtime.database import DatabaseUnavailable

log = structlog.get_logger()

_MOST = 256
_ACCEPTED_AT_ONCE = 64
_WAIT_AFTER_ERROR_S = 0.1
_CREDENTIALS = struct.Struct("3i")


class Indexing:
    """Takes what receiving processes send, and enters it, as much as has come at a time.

    ``on_new`` is called when one of them has connected: it may have taken the place of a dead one.
    """

    def __init__(
        self, index: OwnIndex, listener: socket.socket, on_new: Callable[[], None]
    ) -> None:
        self._index = index
        self._listener = listener
        self._listener.setblocking(False)
        self._on_new = on_new
        self._peers: dict[int, socket.socket] = {}
        self._buffer = memoryview(bytearray(MOST_BYTES))
        self._over: int | None = None
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def serve(self, over: int) -> None:
        """Serve until ``over`` is at its end and the last connection is closed."""
        self._poll.register(over, select.POLLIN)
        self._over = over
        while self._peers or self._over is not None:
            if groups := self._take(None):
                self._enter(groups)

    def _enter(self, groups: list[tuple[socket.socket, list[Entry]]]) -> None:
        is_settled = False

        def board() -> Sequence[Entry]:
            nonlocal is_settled
            if not is_settled:
                is_settled = True
                while sum(len(group) for _, group in groups) < _MOST and (come := self._take(0)):
                    groups.extend(come)
            return [entry for _, group in groups for entry in group]

        answers = iter(self._index.enter(board))
        for peer, group in groups:
            told = [next(answers) for _ in group]
            for answer in told:
                if isinstance(answer, Exception) and not isinstance(answer, DatabaseUnavailable):
                    log.error("instance.not_indexed", exc_info=answer)
            # Who is not there any more is told nothing.
            with suppress(OSError):
                peer.send(answers_message(told))

    def _take(self, timeout_s: float | None) -> list[tuple[socket.socket, list[Entry]]]:
        """Wait until something has come; return what peers have sent, one group of each."""
        taken: list[tuple[socket.socket, list[Entry]]] = []
        for descriptor, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            peers: list[socket.socket] = []
            if descriptor == self._over:
                self._poll.unregister(descriptor)
                self._over = None
            elif descriptor == self._listener.fileno():
                peers = list(self._accepted())
            elif peer := self._peers.get(descriptor):
                peers = [peer]
            taken += [(each, group) for each in peers if (group := self._read(each))]
        return taken

    def _accepted(self) -> Iterator[socket.socket]:
        """Give those who have connected."""
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # No descriptor is free: whoever waits in the queue waits until one is.
                log.exception("index.not_accepted")
                time.sleep(_WAIT_AFTER_ERROR_S)
                return
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            if _CREDENTIALS.unpack(credentials)[1] != os.getuid():
                # What is read here is believed.
                log.warning("index.stranger")
                connection.close()
                continue
            self._peers[connection.fileno()] = connection
            self._poll.register(connection, select.POLLIN)
            self._on_new()
            yield connection

    def _read(self, peer: socket.socket) -> list[Entry]:
        """Return the group that a peer has sent; nothing where it has not, or has ended."""
        try:
            length = peer.recv_into(self._buffer, flags=socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            length = 0
        if length:
            return group_of(self._buffer[:length])
        self._poll.unregister(peer)
        del self._peers[peer.fileno()]
        peer.close()
        return []
