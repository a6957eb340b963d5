"""The HTTP server: listens, answers within limits, and drains when asked."""

import asyncio
import socket
import threading

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from service_runtime.errors import TransientError
from service_runtime.settings import ENV_PREFIX

SILENCE_S = 60.0
"""A client that sends nothing for so long, in the middle of a body, is taken to have gone."""

_HEAD_S = 30.0
_DRAIN_S = 15
_AT_ONE_TIME = 256
_BACKLOG = 256


class AddressInUse(TransientError):
    """Somebody else listens there already, or the address is not ours."""


def listen(host: str, port: int, *, setting: str = "HTTP") -> socket.socket:
    """Return a listening socket.

    Raises
    ------
    AddressInUse
        The settings, ``COUNTERSIGN_<setting>_HOST`` and ``_PORT``, name an address that cannot
        be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise AddressInUse(
            f"{ENV_PREFIX}{setting}_HOST, {ENV_PREFIX}{setting}_PORT: cannot listen: "
            f"{error.strerror}"
        ) from error


class HttpServer:
    """Serves an application from a thread of its own.

    A connection on which the head of a request is not complete within 30 s is closed, whether it
    has begun or not; more than 256 connections or requests at one time are answered 503.
    """

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        self._socket = listening
        self._server = uvicorn.Server(
            uvicorn.Config(
                _UntilSilent(app),
                http=_HeadInTime,
                ws="none",
                # Ours says what is needed, without query strings.
                access_log=False,
                log_config=None,
                server_header=False,
                limit_concurrency=_AT_ONE_TIME,
                backlog=_BACKLOG,
                timeout_keep_alive=int(_HEAD_S) + 1,
                timeout_graceful_shutdown=_DRAIN_S,
                lifespan="off",
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="http"
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Take no more connections, end the requests under way, and stop."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def wait(self, stop: threading.Event) -> None:
        """Return when told to stop.

        Raises
        ------
        RuntimeError
            The server has stopped by itself.
        """
        while not stop.wait(1):
            if not self._thread.is_alive():
                raise RuntimeError("the HTTP server has stopped")


class _HeadInTime(H11Protocol):
    """Closes a connection on which the next request does not get to the end of its head."""

    _impatience: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    @override
    def handle_events(self) -> None:
        super().handle_events()
        self._wait_for_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._impatience is None:
            self._impatience = self.loop.call_later(_HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None


class _UntilSilent:
    """Tells the application that the client has gone when it falls silent within a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_complete = False

        async def receive_in_time() -> Message:
            nonlocal is_complete
            if is_complete:
                # All that may still come is the end of the connection, however late.
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), SILENCE_S)
            except TimeoutError:
                is_complete = True
                return {"type": "http.disconnect"}
            is_complete = not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)
