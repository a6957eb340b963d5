"""A connection under TLS (PS3.15 §B.12), read as a plain one is."""

import select
import ssl
import time

from typing_extensions import override

from dicom_listener.connection import BufferedSocket, ConnectionEnded


class NotSecured(ConnectionEnded):
    """The peers could not agree; the reason is OpenSSL's short name of why."""


class TlsSocket(BufferedSocket):
    """Reads whole TLS records into the buffer; the connection under it never blocks.

    That bytes have come says nothing yet: they may be half a record, or one without data. So
    waiting is decrypting, as far as that goes, and then waiting for more.
    """

    socket: ssl.SSLSocket | None
    receives_values = False
    _is_ended = False

    @override
    def shake_hands(self) -> None:
        """Agree on keys before the deadline, and check the peer's certificate.

        Raises
        ------
        NotSecured
            The peer speaks another version, shows no certificate of ours, or no TLS at all.
        ConnectionEnded
            It closed the connection, or the deadline has come.
        """
        if self.socket is None:
            raise ConnectionEnded
        self.socket.setblocking(False)
        while True:
            try:
                self.socket.do_handshake()
            except ssl.SSLWantReadError:
                if not self._has_come(self.left_s()):
                    raise ConnectionEnded from None
            except ssl.SSLWantWriteError:
                self._wait_to_send(self.left_s())
            except ssl.SSLEOFError as error:
                raise ConnectionEnded from error
            except ssl.SSLError as error:
                raise NotSecured(error.reason or "TLS") from error
            except OSError as error:
                raise ConnectionEnded from error
            else:
                return

    @override
    def wait(self, timeout_s: float | None) -> bool:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._receive_at_once():
            if not self._has_come(None if end is None else end - time.monotonic()):
                return False
        return True

    def _receive_at_once(self) -> bool:
        """Decrypt what has come; return whether there is something to read, or nothing more."""
        if self.has_more or self._is_ended:
            return True
        if self.socket is None:
            return False
        self._before_reuse()
        received = self._decrypt(self._view)
        if received:
            self._start, self._end = 0, received
        return bool(received) or self._is_ended

    def _decrypt(self, view: memoryview) -> int:
        """Decrypt as many whole records as have come and fit; note where the connection ended."""
        received = 0
        try:
            while self.socket is not None and received < len(view):
                read = self.socket.recv_into(view[received:])
                if not read:
                    self._is_ended = True
                    break
                received += read
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self._is_ended = True
        return received

    @override
    def _receive(self, view: memoryview) -> int:
        while not (received := self._decrypt(view)):
            if self._is_ended or not self._more_comes():
                raise ConnectionEnded
        return received

    def _more_comes(self) -> bool:
        if self.deadline is not None:
            return self._has_come(self.left_s())
        return bool(self._poll_peer.poll(self._message_timeout_s * 1000))

    @override
    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left and self.socket is not None:
            try:
                left = left[self.socket.send(left) :]
            except ssl.SSLWantWriteError:
                self._wait_to_send(self._message_timeout_s)
            except ssl.SSLWantReadError:
                self._poll_peer.poll(self._message_timeout_s * 1000)

    def _wait_to_send(self, timeout_s: float | None) -> None:
        poll = select.poll()
        poll.register(self._peer, select.POLLOUT)
        if not poll.poll(None if timeout_s is None else timeout_s * 1000):
            raise ConnectionEnded
