"""How many events a second the messaging takes, end to end, every commit durable.

``python -m bench.messaging [--seconds 8] [--tokens 64] [--form embedded|distributed]`` prints JSON.
Four processes stand in a ring. An event is: a message sent in the transaction that changes a row,
carried to the next process, decoded, entered in the inbox, its effect made, its delivery ended.
The embedded form is SQLite; the distributed one PostgreSQL (``fsync`` on) and RabbitMQ, with the
relay's publishing, confirms and acknowledgments. ``tests/peers`` starts the servers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Column, Integer, String, Table, bindparam, func, select, update

from message_contracts import topology
from message_contracts.delivery import AttachmentRequested, ReportRequested
from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceRequested, ModelReference
from message_contracts.ingest import StudyOpened
from message_contracts.message import Message
from service_runtime.database import Database, Transaction, metadata
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Effect
from service_runtime.messaging.forms import Messaging
from service_runtime.messaging.tables import dead_letter, delivery, inbox, message
from service_runtime.settings import EMBEDDED
from service_runtime.telemetry import log
from tests.peers.postgresql import PostgreSQL
from tests.peers.rabbitmq import RabbitMQ

RING = (
    topology.WORKFLOW,
    topology.INFERENCE_ROUTINE,
    topology.ATTACHMENT,
    topology.REPORT,
)
_WARM_UP_S = 2.0

state = Table(
    "bench_state",
    metadata,
    Column("queue", String(50), primary_key=True),
    Column("token", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)
"""The row that an event changes, one for each process and token, as a case is changed."""

_CHANGE = (
    update(state)
    .where(state.c.queue == bindparam("of_queue"), state.c.token == bindparam("of_token"))
    .values(version=state.c.version + 1)
)
_TABLES = [message, delivery, inbox, dead_letter, state]


@dataclass(frozen=True)
class Installation:
    """Where the ring runs."""

    database_url: str
    broker_url: str

    def open_database(self) -> Database:
        """Open the database as this form does."""
        return Database(self.database_url, via_relay=self.broker_url != EMBEDDED)


def main() -> None:
    """Run the ring in both forms, or in the one that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--tokens", type=int, default=64, help="messages on their way at once")
    parser.add_argument("--form", choices=["embedded", "distributed"])
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="whose disk, for SQLite")
    options = parser.parse_args()
    figures: dict[str, object] = {
        "command": " ".join(["python -m bench.messaging", *sys.argv[1:]]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        # Above the number of CPUs, others were using them too.
        "load_average_before": os.getloadavg()[0],
    }
    if options.form in {None, "embedded"}:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix=".bench-") as folder:
            embedded = Installation(f"sqlite:///{folder}/countersign.sqlite3", EMBEDDED)
            commits = durable_commits_per_s(Path(folder))
            figures["embedded"] = run_ring(embedded, options.seconds, options.tokens) | {
                "bare_durable_commits_per_s": commits
            }
    if options.form in {None, "distributed"}:
        with PostgreSQL(durable=True) as postgresql, RabbitMQ() as rabbitmq:
            distributed = Installation(postgresql.create_database(), rabbitmq.create_vhost())
            figures["distributed"] = run_ring(distributed, options.seconds, options.tokens)
    print(json.dumps(figures, indent=2))


def run_ring(installation: Installation, seconds: float, tokens: int) -> dict[str, object]:
    """Let ``tokens`` messages go round for ``seconds``; return what was counted."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    processes = [
        context.Process(target=stand, args=(installation, place, stop))
        for place in range(len(RING))
    ]
    database = installation.open_database()
    with database.transaction() as transaction:
        metadata.create_all(transaction.connection, tables=_TABLES)
        for queue in RING:
            transaction.connection.execute(
                state.insert(),
                [{"queue": queue, "token": token, "version": 0} for token in range(tokens)],
            )
    for process in processes:
        process.start()
    with Messaging(database, installation.broker_url, "bench"):
        with database.transaction() as transaction:
            for token in range(tokens):
                first = following(RING[-1], token)
                outbox.send(transaction, envelope_of(first))
        figures = measure(database, seconds, processes)
        stop.set()
        for process in processes:
            process.join(30)
    with database.reading() as connection:
        consumed = connection.execute(select(func.count()).select_from(inbox)).scalar_one()
        sent = connection.execute(select(func.count()).select_from(message)).scalar_one()
        dead = connection.execute(select(func.count()).select_from(dead_letter)).scalar_one()
        changed = connection.execute(select(func.sum(state.c.version))).scalar_one()
    database.close()
    if sent - consumed != tokens or changed != consumed or dead:
        sys.exit(f"not conserved: {sent=} {consumed=} {changed=} {dead=} {tokens=}")
    return {**figures, "processes": len(RING), "tokens": tokens, "conserved": True}


def measure(
    database: Database, seconds: float, processes: Sequence[SpawnProcess]
) -> dict[str, object]:
    """Count the events of ``seconds``, and the CPU time of the ring, once it is warm."""

    def consumed() -> int:
        with database.reading() as connection:
            return connection.execute(select(func.count()).select_from(inbox)).scalar_one()

    def cpu_s() -> float:
        return sum(cpu_seconds(process.pid or 0) for process in processes)

    while consumed() == 0:
        threading.Event().wait(0.1)
    threading.Event().wait(_WARM_UP_S)
    before, cpu_before, began = consumed(), cpu_s(), time.monotonic()
    threading.Event().wait(seconds)
    events, took_s, cpu = consumed() - before, time.monotonic() - began, cpu_s() - cpu_before
    return {
        "events": events,
        "seconds": round(took_s, 2),
        "events_per_s": round(events / took_s),
        "ring_cpu_ms_per_event": round(1000 * cpu / events, 2),
    }


def cpu_seconds(process_id: int) -> float:
    """Return the CPU time that a process has used so far."""
    stat = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def durable_commits_per_s(folder: Path, seconds: float = 2.0) -> int:
    """Return what one process with the bare driver commits durably here: what SQLite could do."""
    with closing(sqlite3.connect(folder / "bare.sqlite3", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE bare (number INTEGER)")
        count, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            connection.execute("INSERT INTO bare VALUES (1)")
            count += 1
    return round(count / seconds)


def stand(installation: Installation, place: int, stop: Event) -> None:
    """Be one process of the ring."""
    log.configure(f"bench-{place}", "error")
    queue = RING[place]
    database = installation.open_database()
    stopping = threading.Event()

    def handle(envelope: Envelope) -> Effect:
        token = token_of(envelope.body)
        next_envelope = envelope.leads_to(
            following(queue, token), source="bench", time=datetime.now(UTC)
        )

        def effect(transaction: Transaction) -> None:
            transaction.connection.execute(_CHANGE, {"of_queue": queue, "of_token": token})
            outbox.send(transaction, next_envelope)

        return effect

    def wait() -> None:
        stop.wait()
        stopping.set()

    threading.Thread(target=wait, daemon=True).start()
    with Messaging(database, installation.broker_url, f"bench-{place}") as messaging:
        messaging.consume({queue: handle}, stopping)


def following(queue: str, token: int) -> Message:
    """Return the message that the process of ``queue`` sends on."""
    uid = f"1.2.826.{token}"
    case_id = uuid4()
    if queue == topology.WORKFLOW:
        return InferenceRequested(
            case_id=case_id,
            case_version=1,
            study_instance_uid=uid,
            model=ModelReference(name="bench", version="1"),
            sop_instance_uids=(uid,),
        )
    if queue == topology.INFERENCE_ROUTINE:
        return AttachmentRequested(
            case_id=case_id,
            case_version=1,
            study_instance_uid=uid,
            destination="bench",
            sop_instance_uids=(uid,),
        )
    if queue == topology.ATTACHMENT:
        # A report request names no study: its version carries the token.
        return ReportRequested(case_id=case_id, case_version=token + 1)
    return StudyOpened(study_instance_uid=uid)


def token_of(body: Message) -> int:
    """Return the token that a message carries round."""
    if isinstance(body, ReportRequested):
        return body.case_version - 1
    uid: str = getattr(body, "study_instance_uid", "")
    return int(uid.rpartition(".")[2])


def envelope_of(body: Message) -> Envelope:
    """Put a message into an envelope that begins a journey."""
    return Envelope.of(body, source="bench", time=datetime.now(UTC))


if __name__ == "__main__":
    main()
