"""Heartbeats: which processes live and are ready, told by rows that each keeps fresh."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Boolean, Column, Integer, String, Table, delete, select

from service_runtime.database import Database, UtcDateTime, metadata
from service_runtime.errors import TransientError
from service_runtime.process_identity import token_of
from service_runtime.telemetry import log

service_heartbeat = Table(
    "service_heartbeat",
    metadata,
    Column("service", String(64), primary_key=True),
    # Host, process id and start time.
    Column("process", String(200), primary_key=True),
    Column("process_id", Integer, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("ready", Boolean, nullable=False),
    # Why it is not ready; empty when it is.
    Column("detail", String(500), nullable=False),
)

INTERVAL_S = 2.0
FRESH_S = 10.0
"""A row older than this tells of a process that is gone or hangs."""

_LOG = structlog.get_logger()


@dataclass(frozen=True)
class Heartbeat:
    """What one process last told of itself."""

    service: str
    process_id: int
    started_at: datetime
    at: datetime
    ready: bool
    detail: str


def fresh(database: Database, now: datetime) -> list[Heartbeat]:
    """Return the heartbeats of the processes that live."""
    columns = service_heartbeat.c
    with database.reading() as connection:
        rows = connection.execute(
            select(service_heartbeat)
            .where(columns.at > now - timedelta(seconds=FRESH_S))
            .order_by(columns.service, columns.process_id)
        ).all()
    return [
        Heartbeat(row.service, row.process_id, row.started_at, row.at, row.ready, row.detail)
        for row in rows
    ]


def readiness_of(beats: Iterable[Heartbeat], services: Iterable[str]) -> Mapping[str, str]:
    """Return, for each service, why it is not ready: empty where a process of it is."""
    told: dict[str, str] = {}
    for beat in beats:
        if beat.ready:
            told[beat.service] = ""
        else:
            told.setdefault(beat.service, beat.detail or "starting")
    return {service: told.get(service, "not running") for service in services}


class Heart:
    """Keeps the row of this process fresh, from a thread, until it is closed.

    A database that is away stops no service: the row grows old, which says the same.
    """

    def __init__(self, database: Database, service: str, process_id: int) -> None:
        self._database = database
        self._service = service
        self._process_id = process_id
        self._process = f"{socket.gethostname()}:{token_of(process_id)}"[:200]
        self._started_at = datetime.now(UTC)
        self._state = (False, "starting")
        self._beat = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin, as not ready."""
        self._thread.start()

    def tell(self, *, ready: bool, detail: str = "") -> None:
        """Tell whether this process is ready, at once; ``detail`` says why it is not."""
        self._state = (ready, detail[:500])
        self._beat.set()

    @property
    def is_ready(self) -> bool:
        """What was told last."""
        return self._state[0]

    @property
    def detail(self) -> str:
        """Why it is not ready, as was told last."""
        return self._state[1]

    def close(self) -> None:
        """End, and take the row away: this process has left in order."""
        self._closing.set()
        self._beat.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._beat.clear()
            self._attempt(remove=False)
            self._beat.wait(INTERVAL_S)
        self._attempt(remove=True)

    def _attempt(self, *, remove: bool) -> None:
        try:
            self._write(remove=remove)
        except TransientError as error:
            _LOG.warning("heartbeat.not_written", error=log.describe(error))
        except Exception as error:  # noqa: BLE001
            # A heart that stopped for good would call a healthy process dead.
            _LOG.exception("heartbeat.not_written", exc_info=error)

    def _write(self, *, remove: bool) -> None:
        now = datetime.now(UTC)
        columns = service_heartbeat.c
        ready, detail = self._state
        with self._database.transaction() as transaction:
            # Its own row, and those of processes of this service that left none to take theirs.
            transaction.connection.execute(
                delete(service_heartbeat).where(
                    columns.service == self._service,
                    (columns.process == self._process)
                    | (columns.at < now - timedelta(seconds=10 * FRESH_S)),
                )
            )
            if remove:
                return
            transaction.connection.execute(
                service_heartbeat.insert(),
                {
                    "service": self._service,
                    "process": self._process,
                    "process_id": self._process_id,
                    "started_at": self._started_at,
                    "at": now,
                    "ready": ready,
                    "detail": detail,
                },
            )
