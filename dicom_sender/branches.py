"""Every destination has a branch of the queue ``attachment``: a slow one holds up no other.

What comes by the queue is put into the branch of its destination at once. A branch is consumed by
a thread of its own, while its destination is not paused and its window is open.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from sqlalchemy import select, union

from dicom_sender import commitments
from dicom_sender.handlers import AttachmentRefused
from dicom_sender.window import opens_in_s
from imaging_store.schema.administration import destination_pause
from message_contracts import catalogue, topology
from message_contracts.delivery import (
    AttachmentRequested,
    CommitmentReported,
    RejectionRequested,
)
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.message import Message
from service_runtime.database import Database, Transaction
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Effect, Handling
from service_runtime.messaging.forms import Messaging
from service_runtime.messaging.tables import dead_letter, delivery

LONGEST_BATCH_S = 6 * 3600.0
"""A batch that takes longer is taken to hang, although each answer in it came in time."""

_PAUSED_LOOK_S = 1.0


def branch_of(destination: str) -> str:
    """Return the name of a destination's branch."""
    return topology.branch_of(topology.ATTACHMENT, destination)


@dataclass(frozen=True)
class Sorting:
    """The handler of the queue ``attachment``."""

    destinations: Mapping[str, PacsDestination]
    now: Callable[[], datetime]

    def __call__(self, envelope: Envelope) -> Effect:
        """Put what is to be sent into its branch, and keep what a PACS has reported.

        Raises
        ------
        AttachmentRefused
            The destination is not in the settings.
        """
        match envelope.body:
            case CommitmentReported() as report:
                ae_titles = {name: each.ae_title for name, each in self.destinations.items()}
                return lambda transaction: commitments.keep_report(
                    transaction, report, ae_titles, self.now()
                )
            case AttachmentRequested() | RejectionRequested() as request:
                return self._sorted(envelope, request.destination)
            case Message() as body:
                raise AttachmentRefused(f"{body.TYPE}: the sender does not read it")

    def _sorted(self, envelope: Envelope, destination: str) -> Effect:
        if destination not in self.destinations:
            raise AttachmentRefused(
                f"{destination} is no destination; COUNTERSIGN_PACS_DESTINATIONS lists them"
            )

        def sort(transaction: Transaction) -> None:
            body = catalogue.encode(envelope)
            outbox.keep(transaction, str(envelope.id), envelope.body.routing_key, body)
            outbox.deliver(transaction, str(envelope.id), [branch_of(destination)])

        return sort


@dataclass(frozen=True)
class Gate:
    """Tells for how long nothing is to be sent to a destination."""

    destination: PacsDestination
    database: Database
    now: Callable[[], datetime]
    time_zone: tzinfo

    def __call__(self) -> float:
        """Return the seconds; 0 where it may be sent to now."""
        closed_s = opens_in_s(self.destination.window, self.now(), self.time_zone)
        if closed_s > 0:
            return closed_s
        columns = destination_pause.c
        with self.database.reading() as connection:
            paused = connection.execute(
                select(columns.paused_at).where(columns.destination == self.destination.name)
            ).first()
        return 0 if paused is None else _PAUSED_LOOK_S


def with_something_in_it(database: Database) -> frozenset[str]:
    """Return the destinations whose branch holds messages, or has held what may be replayed.

    Some may not be in the settings any more: theirs are given up, where a person sees it.
    """
    prefix = branch_of("")
    with database.reading() as connection:
        found = connection.execute(
            union(
                select(delivery.c.queue).where(delivery.c.queue.startswith(prefix)),
                select(dead_letter.c.queue).where(
                    dead_letter.c.queue.startswith(prefix), dead_letter.c.resolved_at.is_(None)
                ),
            )
        ).scalars()
        return frozenset(branch.removeprefix(prefix) for branch in found)


@dataclass(frozen=True)
class Branch:
    """How the branch of one destination is consumed."""

    handling: Handling
    gate: Callable[[], float] = lambda: 0


@dataclass
class Branches:
    """The threads that consume the branches.

    Where one fails the process stops: its supervisor starts it anew.
    """

    messaging: Messaging
    branches: Mapping[str, Branch]
    stop: threading.Event
    failure: BaseException | None = field(default=None, init=False)

    def run_beside(self, consume_queue: Callable[[], None]) -> None:
        """Consume the branches until ``stop`` is set, and the queue in this thread."""
        threads = [
            threading.Thread(target=self._consume, args=each, name=f"branch {each[0]}")
            for each in self.branches.items()
        ]
        for thread in threads:
            thread.start()
        try:
            consume_queue()
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        if self.failure is not None:
            raise self.failure

    def _consume(self, name: str, branch: Branch) -> None:
        try:
            self.messaging.consume_branch(
                branch_of(name),
                branch.handling,
                self.stop,
                gate=branch.gate,
                handler_deadline_s=LONGEST_BATCH_S,
            )
        except BaseException as error:  # noqa: BLE001 - the main thread raises it again
            self.failure = error
            self.stop.set()
