"""Accepts connections from the socket that the receiving processes share."""

import select
import socket
import struct

import structlog

from dicom_listener.storage_scp import Acceptor, Service

log = structlog.get_logger()

_YIELD_MS = 5
_WAIT_AFTER_ERROR_MS = 100


def serve(listener: socket.socket, service: Service) -> None:
    """Accept associations from the shared ``listener`` until the process drains.

    Returns once every association has ended.
    """
    listener.setblocking(False)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(service.wake, select.POLLIN)
    only_wake = select.poll()
    only_wake.register(service.wake, select.POLLIN)
    acceptors: list[Acceptor] = []
    while not any(descriptor == service.wake for descriptor, _ in poll.poll()):
        if service.admission.has_more_than_others():
            only_wake.poll(_YIELD_MS)
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
        try:
            _set_options(connection, service.dimse_timeout_s)
            acceptor = Acceptor(service, connection, address)
            acceptor.start()
        except (OSError, RuntimeError):
            log.exception("connection.not_served")
            connection.close()
        else:
            acceptors.append(acceptor)
    listener.close()
    for acceptor in acceptors:
        acceptor.join()


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
