"""The process that enters what all receiving processes receive.

Receiving processes commit nothing by themselves: they would queue for the database, one instance a
commit. Each association sends its arrivals here, and waits for the answer; whatever has come while
the last commit was under way shares the next. Where this process dies, the associations send again
what they have no answer for: to enter an arrival twice changes nothing.
"""

import os
import pickle
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import local

import structlog

from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome
from dicom_listener.index import Answer, Entry, Index, OwnIndex
from dicom_listener.open_associations import OpenAssociation
from service_runtime.database import DatabaseFull, DatabaseUnavailable

log = structlog.get_logger()

MOST_BYTES = 128 * 1024
"""Of one arrival; a socket takes it at once. Of the few that are larger no group is made."""

_GROUP = 64
_GATHERING_S = 0.004
_SENDING_S = 0.1
_BACKLOG = 4096
_WAIT_AFTER_ERROR_S = 0.1
_ANSWER_S = 60
_ATTEMPTS = 2
_FULL, _AWAY, _REFUSED = b"\xfd", b"\xfe", b"\xff"
_OUTCOMES = {bytes([outcome.value]): outcome for outcome in Outcome}
_CODES = {outcome: code for code, outcome in _OUTCOMES.items()}
_CREDENTIALS = struct.Struct("3i")


class NotEntered(Exception):
    """The index would not take an arrival; the log of the process that indexes has the reason."""


def listen() -> socket.socket:
    """Return the socket that this process and those it forks reach the indexing process by.

    It has no file: its name, which the kernel chooses, goes with it.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")
    listener.listen(_BACKLOG)
    return listener


class RemoteIndex:
    """Has another process enter arrivals; each thread, an association's, has its own connection.

    ``own`` enters those that are too large for a message, and what arrives while ``is_alone``:
    nobody is there to share a commit with, and to wake another process would take longer.
    """

    def __init__(
        self, address: bytes, own: Index, is_alone: Callable[[], bool] = lambda: False
    ) -> None:
        self._address = address
        self._own = own
        self._is_alone = is_alone
        self._of_thread = local()

    def add(self, arrival: Arrival) -> Outcome:
        """Have an arrival entered; see `Index.add`.

        Raises
        ------
        DatabaseUnavailable
            It is not entered, or may not be; the sender has to send again.
        NotEntered
            The database refuses it.
        """
        if self._is_alone():
            return self._add_own(arrival)
        request = pickle.dumps(arrival, pickle.HIGHEST_PROTOCOL)
        if len(request) > MOST_BYTES:
            return self._add_own(arrival)
        self._of_thread.has_own = False
        try:
            answer = self._ask(request)
        except DatabaseUnavailable:
            if arrival.association is not None:
                # With the connection the process at its other end lets go of what was held open.
                arrival.association.study_instance_uid = ""
            raise
        outcome = _OUTCOMES.get(answer[:1])
        if outcome is None:
            raise _error_of(answer)
        if arrival.association is not None:
            arrival.association.study_instance_uid = arrival.header.study_instance_uid
        return outcome

    def end(self, association: OpenAssociation) -> None:
        """Close the connection: the process at its other end lets go of what was held open."""
        if getattr(self._of_thread, "has_own", False) or not self._is_connected():
            # It knows nothing of the last arrival, or has died since.
            self._own.end(association)
        association.study_instance_uid = ""
        self._close()

    def _add_own(self, arrival: Arrival) -> Outcome:
        self._of_thread.has_own = True
        return self._own.add(arrival)

    def _ask(self, request: bytes) -> bytes:
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                connection = self._connection()
                connection.send(request)
                if answer := connection.recv(MOST_BYTES):
                    return answer
                reason = "index: its process has ended"
            except TimeoutError:
                # It lives, and may yet enter it: asked again it would only have more to do.
                self._close()
                raise DatabaseUnavailable("index: no answer in time") from None
            except OSError as error:
                reason = f"index: {type(error).__name__}"
            self._close()
            log.warning("index.asked_again", attempt=attempt, reason=reason)
        raise DatabaseUnavailable(reason)

    def _connection(self) -> socket.socket:
        connection: socket.socket | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._of_thread.connection = connection
            connection.settimeout(_ANSWER_S)
            connection.connect(self._address)
        return connection

    def _is_connected(self) -> bool:
        connection: socket.socket | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            return False
        connection.setblocking(False)
        try:
            return bool(connection.recv(1))
        except OSError as error:
            return isinstance(error, BlockingIOError)

    def _close(self) -> None:
        connection: socket.socket | None = getattr(self._of_thread, "connection", None)
        if connection is not None:
            connection.close()
            self._of_thread.connection = None


class _Peer:
    """An association of a receiving process."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.last_sent = 0.0
        self.association: OpenAssociation | None = None
        """As the last arrival had it."""


class Indexing:
    """Takes what receiving processes send, and enters it, as much as has come at a time."""

    def __init__(self, index: OwnIndex, listener: socket.socket) -> None:
        self._index = index
        self._listener = listener
        self._listener.setblocking(False)
        self._peers: dict[int, _Peer] = {}
        self._buffer = memoryview(bytearray(MOST_BYTES))
        self._over: int | None = None
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def serve(self, over: int) -> None:
        """Serve until ``over`` is at its end and the last connection is closed."""
        self._poll.register(over, select.POLLIN)
        self._over = over
        while self._peers or self._over is not None:
            if group := self._take(None):
                self._gather(group)
                self._enter(group)

    def _gather(self, group: list[tuple[_Peer, Entry]]) -> None:
        """Wait a moment for others, where several associations are sending at the same time.

        A commit costs the same for one as for many. Who sends alone waits for nobody.
        """
        now = time.monotonic()
        sending = sum(now - peer.last_sent < _SENDING_S for peer in self._peers.values())
        while (left_s := now + _GATHERING_S - time.monotonic()) > 0 and len(group) < sending // 2:
            group += self._take(left_s)

    def _enter(self, group: list[tuple[_Peer, Entry]]) -> None:
        is_settled = False

        def board() -> Sequence[Entry]:
            nonlocal is_settled
            if not is_settled:
                is_settled = True
                while len(group) < _GROUP and (come := self._take(0)):
                    group.extend(come)
            return [entry for _, entry in group]

        answers = self._index.enter(board)
        for (peer, entry), answer in zip(group, answers, strict=True):
            if isinstance(entry, Arrival):
                # Who is not there any more is told nothing: it counts as ended soon.
                with suppress(OSError):
                    peer.connection.send(_code_of(answer))

    def _take(self, timeout_s: float | None) -> list[tuple[_Peer, Entry]]:
        """Wait until something has come; return what peers have sent, one entry of each."""
        taken: list[tuple[_Peer, Entry]] = []
        for descriptor, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            peers: list[_Peer] = []
            if descriptor == self._over:
                self._poll.unregister(descriptor)
                self._over = None
            elif descriptor == self._listener.fileno():
                # Who connects has something to send.
                peers = list(self._accepted())
            elif peer := self._peers.get(descriptor):
                peers = [peer]
            taken += [(each, entry) for each in peers if (entry := self._read(each)) is not None]
        return taken

    def _accepted(self) -> Iterator[_Peer]:
        """Give those who have connected."""
        for _ in range(_BACKLOG):
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
            peer = self._peers[connection.fileno()] = _Peer(connection)
            self._poll.register(connection, select.POLLIN)
            yield peer

    def _read(self, peer: _Peer) -> Entry | None:
        """Return an arrival, or where the peer has ended the association that it was."""
        try:
            length = peer.connection.recv_into(self._buffer, flags=socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            length = 0
        if length:
            arrival: Arrival = pickle.loads(self._buffer[:length])  # noqa: S301 - of our own process
            peer.association = arrival.association
            peer.last_sent = time.monotonic()
            return arrival
        self._poll.unregister(peer.connection)
        del self._peers[peer.connection.fileno()]
        peer.connection.close()
        ended = peer.association
        return ended if ended is not None and ended.study_instance_uid else None


def _code_of(answer: Answer) -> bytes:
    if isinstance(answer, Outcome):
        return _CODES[answer]
    if isinstance(answer, DatabaseFull):
        return _FULL + str(answer).encode()
    if isinstance(answer, DatabaseUnavailable):
        return _AWAY + str(answer).encode()
    log.error("instance.not_indexed", exc_info=answer)
    return _REFUSED + type(answer).__name__.encode()


def _error_of(answer: bytes) -> Exception:
    reason = answer[1:].decode()
    if answer[:1] == _FULL:
        return DatabaseFull(reason)
    if answer[:1] == _AWAY:
        return DatabaseUnavailable(reason)
    return NotEntered(reason)
