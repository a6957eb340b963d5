"""Health and metrics: checks that say what is wrong, and a small server for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text
from typing_extensions import override

from service_runtime.database import Database
from service_runtime.telemetry import log, metrics

Check = Callable[[], str]
"""Returns what is wrong in a few words, without a patient's data; nothing where all is well."""


@dataclass(frozen=True)
class Health:
    """The answers of all checks."""

    faults: Mapping[str, str]
    """By check; empty text where all is well."""

    @property
    def ready(self) -> bool:
        """Whether every check found all well."""
        return not any(self.faults.values())

    def body(self) -> dict[str, object]:
        """Return the JSON that ``/health/ready`` answers with."""
        return {
            "status": "ready" if self.ready else "not ready",
            "checks": {name: fault or "ok" for name, fault in self.faults.items()},
        }


def examine(checks: Mapping[str, Check]) -> Health:
    """Run every check. One that raises has found something wrong."""
    faults = {}
    for name, check in checks.items():
        try:
            faults[name] = check()
        except Exception as error:  # noqa: BLE001
            faults[name] = log.describe(error)
    return Health(faults)


def database_check(database: Database) -> Check:
    """Return a check that the database answers."""

    def answers() -> str:
        with database.reading() as connection:
            connection.execute(text("SELECT 1"))
        return ""

    return answers


class HealthServer:
    """Answers ``/health/live``, ``/health/ready`` and ``/metrics`` from a thread.

    Parameters
    ----------
    port
        0 takes a free one; ``port`` then says which.
    """

    def __init__(
        self, host: str, port: int, checks: Mapping[str, Check], database: Database
    ) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler_class(checks, database))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and close the socket."""
        self._server.shutdown()
        self._thread.join(timeout=5)
        self._server.server_close()


def _handler_class(checks: Mapping[str, Check], database: Database) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "countersign"
        sys_version = ""
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/health/live":
                self._answer_json(HTTPStatus.OK, {"status": "live"})
            elif path == "/health/ready":
                health = examine(checks)
                status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer_json(status, health.body())
            elif path == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics.exposition(database))
            else:
                self._answer_json(HTTPStatus.NOT_FOUND, {"status": "not found"})

        def _answer_json(self, status: HTTPStatus, body: object) -> None:
            self._answer(status, "application/json", json.dumps(body).encode())

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: probes come every few seconds."""

    return Handler
