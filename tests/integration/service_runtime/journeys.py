"""Messages to send, a ledger that effects write, and processes that consume; for these tests."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, update

from message_contracts import topology
from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceRequested, ModelReference, Urgency
from message_contracts.ingest import StudyOpened
from message_contracts.topology import RetryPolicy
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging import backlog, dead_letters, outbox
from service_runtime.messaging.consumer import Effect
from service_runtime.messaging.tables import delivery
from service_runtime.settings import EMBEDDED
from tests.peers.processes import ServerProcess, wait_until

WORKFLOW = topology.WORKFLOW

ledger = Table(
    "ledger",
    # Apart from the product's tables, which a test compares with its migrations.
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("message_id", String(36), nullable=False),
    Column("note", String(100), nullable=False),
)
"""One row per effect: two for a message would be an effect that happened twice."""

FAST = RetryPolicy(first_delay_s=0.05, multiplier=2, cap_s=0.4, attempts=4)


@dataclass(frozen=True)
class Form:
    """Where a test's messages live."""

    database_url: str
    broker_url: str

    @property
    def via_broker(self) -> bool:
        return self.broker_url != EMBEDDED

    def open_database(self) -> Database:
        return Database(self.database_url, via_relay=self.via_broker)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment in which a process of this form starts."""
        return {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "COUNTERSIGN_DATABASE_URL": self.database_url,
            "COUNTERSIGN_BROKER_URL": self.broker_url,
            **more,
        }


def fast_queues() -> dict[str, topology.Queue]:
    """Return the topology with delays that a test can wait for."""
    return {name: replace(queue, retry=FAST) for name, queue in topology.QUEUES.items()}


def study_opened(number: int = 1, *, message_id: UUID | None = None) -> Envelope:
    return Envelope.of(
        StudyOpened(study_instance_uid=f"1.2.826.{number}"),
        source="tests",
        time=datetime.now(UTC),
        id=message_id,
    )


def inference_requested(urgency: Urgency) -> Envelope:
    request = InferenceRequested(
        case_id=uuid4(),
        case_version=1,
        study_instance_uid="1.2.3",
        model=ModelReference(name="chest", version="1"),
        sop_instance_uids=("1.2.3.4",),
        urgency=urgency,
    )
    return Envelope.of(request, source="tests", time=datetime.now(UTC))


def make_due(database: Database) -> None:
    """Have every delivery be due, also where the machine's clock was set back since."""
    with database.transaction() as transaction:
        transaction.connection.execute(update(delivery).values(due_at=0))


def send_all(database: Database, *envelopes: Envelope) -> None:
    with database.transaction() as transaction:
        for envelope in envelopes:
            outbox.send(transaction, envelope)


def noted(envelope: Envelope, note: str = "") -> Effect:
    """Return the effect of writing a row in the ledger."""

    def effect(transaction: Transaction) -> None:
        transaction.connection.execute(
            insert(ledger), {"message_id": str(envelope.id), "note": note}
        )

    return effect


def effects(database: Database) -> Counter[str]:
    """Return how many effects each message has had."""
    with database.reading() as connection:
        return Counter(connection.execute(select(ledger.c.message_id)).scalars())


def notes(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(ledger.c.note).order_by(ledger.c.id)).scalars())


def wait_for_effects(database: Database, count: int) -> Counter[str]:
    """Wait until so many messages have had their effect, and return all effects."""
    wait_until(
        lambda: len(effects(database)) >= count,
        what=f"{count} messages handled (of which {len(effects(database))} at first)",
    )
    return effects(database)


def nothing_waits(database: Database) -> bool:
    """Tell whether no delivery is left."""
    return backlog.waiting(database) == {}


def refused(_envelope: Envelope) -> Effect:
    """Handle nothing: whatever comes is given up at once."""
    raise PermanentError("refused")


def wait_for_dead_letters(database: Database) -> list[dead_letters.DeadLetter]:
    """Wait until a message has been given up, and return all that were."""
    return wait_until(lambda: dead_letters.list_open(database), what="a dead letter")


def consumer_process(form: Form, log: Path, **environment: str) -> ServerProcess:
    """Return a process, not yet started, that consumes the workflow queue into the ledger."""
    return ServerProcess(
        [sys.executable, "-m", "tests.integration.service_runtime.consuming_service"],
        log=log,
        environment=form.environment(**environment),
    )


def numbered(count: int) -> Iterator[Envelope]:
    return (study_opened(number) for number in range(count))
