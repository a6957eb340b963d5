"""The HTTP server: listens, answers, and drains when asked."""

import socket
import threading

import uvicorn
from fastapi import FastAPI

from service_runtime.errors import TransientError

_DRAIN_S = 15
_IDLE_S = 30


class AddressInUse(TransientError):
    """Somebody else listens there already, or the address is not ours."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises
    ------
    AddressInUse
        The settings name an address that cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise AddressInUse(
            f"COUNTERSIGN_HTTP_HOST, COUNTERSIGN_HTTP_PORT: cannot listen: {error.strerror}"
        ) from error


class HttpServer:
    """Serves an application from a thread of its own."""

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        self._socket = listening
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                # Ours says what is needed, without query strings.
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=_IDLE_S,
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
