"""A listener's work without its processes: instances arrive, people decide, messages are handled.

What is sent is handled when the test says so, as the intake process would.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import Table, select

from dicom_listener.announcer import Announcer
from dicom_listener.c_store import StoreRequest
from dicom_listener.completion import Limits
from dicom_listener.deciding import intake_handling
from dicom_listener.index import OwnIndex
from dicom_listener.keeping import Reception
from dicom_listener.peers import Peer
from dicom_listener.reception import InstanceKeeper
from dicom_listener.sender import Sender
from imaging_store.instances import FileInstanceStore
from message_contracts import catalogue, topology
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.ingest import CompletionReason, StudyReceived, StudyUpdated
from message_contracts.intake import ConflictDecided, ConflictDecision
from message_contracts.message import Message
from service_runtime.database import Database
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Handler
from service_runtime.messaging.tables import delivery, message
from tests.integration.dicom_listener.listener import Sendable, a_slice, sendable
from tests.sending_order import sending_order

NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)
SITE = Peer("", timedelta(seconds=30), "LOCAL", UTC)
SENDER = Sender(Peer("MODALITY", timedelta(seconds=30), "LOCAL", UTC), "COUNTERSIGN")
LIMITS = Limits(association_timeout=timedelta(seconds=300), deadline=timedelta(hours=4))


class ReadingRoom:
    """One installation's store and index."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.store = FileInstanceStore(folder)
        self.time = NOON
        self.keeper = InstanceKeeper(self.store, database, OwnIndex(database), self.now)
        self.handling = intake_handling(database, self.store, SITE, self.now)
        self.announcer = Announcer(database, LIMITS)

    def now(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time

    def arrive(self, *sent: Dataset | Sendable) -> list[int]:
        """Receive instances; return the statuses."""
        statuses = []
        for each in sent:
            it = sendable(each) if isinstance(each, Dataset) else each
            reception = self.begin(it)
            reception.write(memoryview(it.data))
            statuses.append(int(reception.finish().status))
        return statuses

    def begin(self, sent: Sendable) -> Reception:
        """Begin to receive an instance."""
        request = StoreRequest(1, sent.sop_class_uid, sent.sop_instance_uid, has_data_set=True)
        return self.keeper(request, sent.transfer_syntax_uid, SENDER)

    def become_quiet(self) -> None:
        """Let the quiet period pass, and announce."""
        self.time += SITE.quiet_period
        self.announcer.look(self.now())

    def handle(self) -> None:
        """Handle what waits for the intake process, until nothing does."""
        handle_all(self.database, topology.INTAKE, self.handling.handler)

    def give_up(self) -> None:
        """Give up what waits for the intake process, as its consumer does after all attempts."""
        assert self.handling.on_exhausted is not None
        for _, envelope in _waiting(self.database, topology.INTAKE):
            effect = self.handling.on_exhausted(envelope, "its consumer stopped")
            with self.database.transaction() as transaction:
                effect(transaction)

    def decide(
        self, conflict_id: UUID, decision: ConflictDecision, uid: str, decided_before: int = 0
    ) -> None:
        """Have a person's decision carried out."""
        body = ConflictDecided(
            conflict_id=conflict_id,
            study_instance_uid=uid,
            decision=decision,
            decided_by="ada",
            decided_before=decided_before,
        )
        self.send(body, derived_id(ConflictDecided.TYPE, conflict_id, decided_before))
        self.handle()

    def send(self, body: Message, message_id: UUID | None = None) -> None:
        envelope = Envelope.of(body, source="test", time=self.now(), id=message_id)
        with self.database.transaction() as transaction:
            outbox.send(transaction, envelope)

    def rows(self, table: Table, **values: object) -> list[Any]:
        """Return all rows of a table that have these values."""
        where = [table.c[name] == value for name, value in values.items()]
        with self.database.reading() as connection:
            return list(connection.execute(select(table).where(*where)).all())

    def row(self, table: Table, **values: object) -> Any:
        """Return the only such row."""
        [row] = self.rows(table, **values)
        return row

    def said(self, *kinds: type[Message]) -> list[Any]:
        """Bodies of the messages sent, of some kinds only, the oldest first."""
        with self.database.reading() as connection:
            rows = connection.execute(
                select(message.c.body).order_by(sending_order(self.database.dialect))
            )
            bodies = [catalogue.decode(row.body).body for row in rows]
        return [body for body in bodies if type(body) in kinds]


def handle_all(database: Database, queue: str, handler: Handler) -> int:
    """Handle what waits in a queue, as its consumer would, until nothing does; count it."""
    handled = 0
    while waiting := _waiting(database, queue):
        for message_id, envelope in waiting:
            effect = handler(envelope)
            handled += 1
            with database.transaction() as transaction:
                if outbox.first_time(transaction, queue, message_id):
                    effect(transaction)
                transaction.connection.execute(
                    delivery.delete().where(
                        delivery.c.queue == queue, delivery.c.message_id == message_id
                    )
                )
    return handled


def _waiting(database: Database, queue: str) -> list[tuple[str, Envelope]]:
    with database.reading() as connection:
        rows = connection.execute(
            select(message.c.id, message.c.body)
            .join(delivery, delivery.c.message_id == message.c.id)
            .where(delivery.c.queue == queue)
            .order_by(sending_order(database.dialect))
        ).all()
    return [(row.id, catalogue.decode(row.body)) for row in rows]


def of(ds: Dataset, **changes: object) -> Dataset:
    """Draw a further instance of the same study and series."""
    same = {name: ds[name].value for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    return a_slice(**{**same, "SOPInstanceUID": generate_uid(), **changes})


def again(ds: Dataset, **changes: object) -> Dataset:
    """Draw the same instance, with changes."""
    return of(ds, **{"SOPInstanceUID": ds.SOPInstanceUID, **changes})


def completed(room: ReadingRoom) -> list[tuple[int, int, CompletionReason]]:
    """Return version, instance count and reason of each version that was announced."""
    return [
        (body.study_version, body.instance_count, body.reason)
        for body in room.said(StudyReceived, StudyUpdated)
    ]
