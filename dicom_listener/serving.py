"""Accepts connections from the sockets that the receiving processes share."""

import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Mapping

import structlog

from dicom_listener.storage_scp import Acceptor, Service

log = structlog.get_logger()

Secure = Callable[[], ssl.SSLContext]
"""Gives the context of the next connection."""

MOST_UNASSOCIATED = 64
"""Connections of one process that have no association: not yet, or no more."""

_YIELD_MS = 5
_WAIT_AFTER_ERROR_MS = 100


def serve(listeners: Mapping[socket.socket, Secure | None], service: Service) -> None:
    """Accept associations from the shared ``listeners`` until the process drains.

    Those of a listener with a context are under TLS. Returns once every association has ended.
    """
    poll, only_wake = select.poll(), select.poll()
    by_descriptor = {listener.fileno(): listener for listener in listeners}
    for listener in listeners:
        listener.setblocking(False)
        poll.register(listener, select.POLLIN)
    for each in (poll, only_wake):
        each.register(service.wake, select.POLLIN)
    acceptors: list[Acceptor] = []
    while service.wake not in (ready := [descriptor for descriptor, _ in poll.poll()]):
        if service.front_door.count.has_more_than_others():
            only_wake.poll(_YIELD_MS)
        for descriptor in ready:
            listener = by_descriptor[descriptor]
            try:
                connection, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # another process has taken it, or the peer has gone
            except OSError:
                # No descriptor is free: whoever waits in the queue waits until one is.
                log.exception("connection.not_accepted")
                only_wake.poll(_WAIT_AFTER_ERROR_MS)
                continue
            acceptors = [acceptor for acceptor in acceptors if acceptor.is_alive()]
            _make_room(acceptors)
            acceptors += _begin(service, connection, address, listeners[listener])
    for listener, secure in listeners.items():
        acceptors += _last(listener, service, secure)
        listener.close()
    for acceptor in acceptors:
        acceptor.join()


def _last(listener: socket.socket, service: Service, secure: Secure | None) -> Iterable[Acceptor]:
    """Begin what still waits in the queue: it is rejected in the Standard's words."""
    while True:
        try:
            connection, address = listener.accept()
        except OSError:
            return
        yield from _begin(service, connection, address, secure)


def _make_room(acceptors: list[Acceptor]) -> None:
    """Cut the connection that has had no association for longest, where there are too many.

    A peer that asks for an association has one in a moment: this meets those that say nothing.
    """
    without = [acceptor for acceptor in acceptors if not acceptor.is_established]
    for acceptor in without[: len(without) - MOST_UNASSOCIATED + 1]:
        log.warning("connection.cut", reason="too many connections without an association")
        acceptor.cut()


def _begin(
    service: Service, connection: socket.socket, address: tuple[object, ...], secure: Secure | None
) -> list[Acceptor]:
    """Serve a connection in a thread of its own; none where that cannot be."""
    try:
        _set_options(connection, service.dimse_timeout_s)
        if secure is not None:
            connection = secure().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        acceptor = Acceptor(service, connection, address)
        acceptor.start()
    except (OSError, RuntimeError):
        log.exception("connection.not_served")
        connection.close()
        return []
    return [acceptor]


def _set_options(connection: socket.socket, receive_timeout_s: float) -> None:
    """Answer without delay, and let a peer that has vanished in mid-message be noticed.

    The time-out is the kernel's (SO_RCVTIMEO), so that a read stays one system call.
    """
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    whole_s, rest_s = divmod(receive_timeout_s, 1)
    timeout = struct.pack("@ll", int(whole_s), int(rest_s * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
