"""How a service's process lives: it starts, tells how it is, drains when asked, and leaves."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Generic, TypeVar

import structlog

from service_runtime import settings as settings_module
from service_runtime.database import Database
from service_runtime.errors import TransientError
from service_runtime.health import Check, HealthServer, database_check
from service_runtime.heartbeat import Heart
from service_runtime.messaging.forms import Messaging
from service_runtime.settings import ServiceSettings
from service_runtime.telemetry import log

SUPERVISOR_FD = "COUNTERSIGN_SUPERVISOR_FD"
"""Names an inherited descriptor, the read end of a pipe: its end of file means that the supervisor
is gone. Nothing is ever written to it."""

EXIT_FAILED = 70
"""An error that nobody foresaw, or a handler that hung."""
EXIT_TRY_AGAIN = 75
"""The database, or something else that it needs to start, is away."""

S = TypeVar("S", bound=ServiceSettings)
_LOG = structlog.get_logger()


class Stop:
    """Sets ``event`` at SIGTERM, at SIGINT, and when the supervisor is gone; told twice, once.

    The signal handler only writes to a pipe, and a thread reads it: to set an event within the
    handler could wait for a lock that the interrupted code itself holds.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        supervisor = os.environ.get(SUPERVISOR_FD)
        self._supervisor = int(supervisor) if supervisor else None
        self._thread = threading.Thread(target=self._watch, name="stop", daemon=True)

    def listen(self) -> None:
        """Take over the signals; only in the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Signals from now on are passed over: the process is leaving."""
        self._wake()
        self._thread.join(timeout=5)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._wake()

    def _wake(self) -> None:
        # A full pipe has been told already.
        with suppress(BlockingIOError):
            os.write(self._write, b"x")

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if self._supervisor is not None:
            poll.register(self._supervisor, select.POLLIN | select.POLLHUP)
        poll.poll()
        self.event.set()


@dataclass
class Service(Generic[S]):
    """What a service's ``serve`` is given."""

    name: str
    settings: S
    database: Database
    messaging: Messaging
    stop: threading.Event
    checks: dict[str, Check]
    """What ``/health/ready`` asks; a service adds its own."""

    heart: Heart = field(repr=False)

    def ready(self) -> None:
        """Tell that this process does its work from now on."""
        self.heart.tell(ready=True)
        _LOG.info("service.ready")


def run_service(name: str, settings_class: type[S], serve: Callable[[Service[S]], None]) -> None:
    """Run a service's process: settings, logs, health, messaging; then ``serve`` until it returns.

    ``serve`` returns soon after ``service.stop`` is set. It calls ``service.ready()`` when it has
    loaded what it needs.

    Raises
    ------
    SystemExit
        With 2 for wrong settings, 75 where something that it needs is away, 70 for an error that
        nobody foresaw. A clean end returns.
    """
    settings = settings_module.load(settings_class)
    log.configure(name, settings.log_level)
    stop = Stop()
    stop.listen()
    try:
        with service_of(name, settings, stop.event) as service:
            _LOG.info("service.started", process_id=os.getpid())
            serve(service)
    except TransientError as error:
        _LOG.exception("service.failed", exc_info=error, exit_code=EXIT_TRY_AGAIN)
        sys.exit(EXIT_TRY_AGAIN)
    except Exception as error:  # noqa: BLE001
        _LOG.exception("service.failed", exc_info=error, exit_code=EXIT_FAILED)
        sys.exit(EXIT_FAILED)
    finally:
        stop.close()
    _LOG.info("service.stopped")


@contextmanager
def service_of(name: str, settings: S, stop: threading.Event) -> Iterator[Service[S]]:
    """Open what a process of a service needs; closed in order at the end. Use it after forking."""
    with ExitStack() as open_things:
        database = Database(settings.database, via_relay=settings.via_broker)
        open_things.callback(database.close)
        heart = Heart(database, name, os.getpid())
        heart.start()
        open_things.callback(heart.close)
        messaging = Messaging(database, settings.broker_url, name)
        checks: dict[str, Check] = {
            "database": database_check(database),
            "broker": lambda: "" if messaging.ready() else "not connected",
            "service": lambda: "" if heart.is_ready else heart.detail,
        }
        if settings.health_port is not None:
            server = HealthServer(settings.health_host, settings.health_port, checks, database)
            server.start()
            open_things.callback(server.close)
        open_things.enter_context(messaging)
        yield Service(name, settings, database, messaging, stop, checks, heart)
        heart.tell(ready=False, detail="stopping")
