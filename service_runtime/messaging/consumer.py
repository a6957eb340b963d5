"""The one consumer: a handler decides outside any transaction, its effect happens in one.

Both forms run it. They differ in where deliveries come from and how one is ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import structlog
from sqlalchemy import select

from message_contracts import catalogue, topology
from message_contracts.envelope import Envelope
from service_runtime.database import Database, DatabaseUnavailable, Transaction
from service_runtime.errors import PermanentError, Postponed
from service_runtime.messaging import outbox
from service_runtime.messaging.outbox import Again, Delivery, LeaseLost
from service_runtime.messaging.tables import inbox
from service_runtime.telemetry import log, metrics, trace

Effect = Callable[[Transaction], None]
"""What a message changes; run in one short transaction, perhaps not at all, never twice."""

Handler = Callable[[Envelope], Effect]
"""Decides what a message changes. May compute and do I/O; may be called again for a message."""

CLAIM_LIMIT = 10
"""A message taken this often without an outcome kills its consumers. Below the broker's own limit,
so that it is we who give it up, and its ``on_exhausted`` runs."""

_LOG = structlog.get_logger()


class Outcome(StrEnum):
    """How the handling of a delivery ended."""

    HANDLED = "handled"
    REPEATED = "repeated"
    """It had been handled before; nothing was changed."""
    RETRIED = "retried"
    POSTPONED = "postponed"
    """Nothing has failed; it comes again, with all its attempts."""
    DEAD = "dead"
    LOST = "lost"
    """Somebody else has it by now."""
    UNRECORDED = "unrecorded"
    """The process is stopping and the database is away; it will be delivered again."""


@dataclass(frozen=True)
class Handling:
    """A handler, and what changes when a message of its queue is given up."""

    handler: Handler
    on_exhausted: Callable[[Envelope, str], Effect] | None = None
    """Of the message and the reason; run in the transaction that makes the dead letter."""
    retry: topology.RetryPolicy | None = None
    """When its failures are tried again, where that is not as for the queue."""


class Ending(Protocol):
    """How a delivery is ended in a transaction; the two forms differ here."""

    def settle(self, transaction: Transaction, held: Delivery) -> None:
        """End it: done, or dead."""

    def retry(self, transaction: Transaction, held: Delivery, again: Again) -> None:
        """Have it come again."""


@dataclass(frozen=True)
class _Failure:
    reason: str
    final: bool
    postponed_s: float | None = None
    """Where nothing has failed: after how long to look again."""


@dataclass
class Consumer:
    """Takes deliveries to their handlers and records the outcome; in several threads, if asked."""

    database: Database
    handlings: Mapping[str, Handling]
    ending: Ending
    _current: dict[int, tuple[Delivery, float]] = field(default_factory=dict, init=False)

    @property
    def current(self) -> tuple[Delivery, float] | None:
        """What has been handled for longest, and since when (monotonic); for who watches."""
        # A copy, made at once: other threads begin and end meanwhile.
        return min(list(self._current.values()), key=lambda each: each[1], default=None)

    def handle(self, held: Delivery, stop: threading.Event) -> Outcome:
        """Handle a delivery to its recorded outcome; waits while the database is away."""
        began = time.monotonic()
        thread = threading.get_ident()
        self._current[thread] = (held, began)
        try:
            with self._bound(held):
                outcome = self._handle(held, stop)
        finally:
            del self._current[thread]
        took_s = time.monotonic() - began
        metrics.MESSAGES_CONSUMED.labels(held.queue, outcome).inc()
        metrics.HANDLER_SECONDS.labels(held.queue).observe(took_s)
        return outcome

    def fail(self, held: Delivery, reason: str, stop: threading.Event) -> Outcome:
        """Record that handling failed for a passing reason, without handling."""
        return self._record(held, _envelope_or_none(held), _Failure(reason, final=False), stop)

    def give_up(self, held: Delivery, reason: str, stop: threading.Event) -> Outcome:
        """Make a dead letter of a delivery without handling it."""
        outcome = self._record(held, _envelope_or_none(held), _Failure(reason, final=True), stop)
        metrics.MESSAGES_CONSUMED.labels(held.queue, outcome).inc()
        return outcome

    def _bound(self, held: Delivery) -> AbstractContextManager[None]:
        return log.bound(
            queue=held.queue, message_id=held.message_id, message_type=held.routing_key
        )

    def _handle(self, held: Delivery, stop: threading.Event) -> Outcome:
        try:
            envelope = catalogue.decode(held.body)
        except catalogue.UndecodableMessage as error:
            return self._record(held, None, _Failure(str(error), final=True), stop)
        step = trace.continued(envelope.traceparent)
        envelope = envelope.model_copy(update={"traceparent": step})
        with log.bound(correlation_id=str(envelope.correlation_id), **trace.ids_of(step)):
            if held.claims > CLAIM_LIMIT:
                reason = f"its consumer stopped {CLAIM_LIMIT} times while handling it"
                return self._record(held, envelope, _Failure(reason, final=True), stop)
            result = self._attempt(held, envelope)
            if isinstance(result, Outcome):
                _LOG.debug("message.handled", outcome=result)
                return result
            return self._record(held, envelope, result, stop)

    def _attempt(self, held: Delivery, envelope: Envelope) -> Outcome | _Failure:
        try:
            effect = self.handlings[held.queue].handler(envelope)
            with self.database.transaction() as transaction:
                first = outbox.first_time(transaction, held.queue, held.message_id)
                if first:
                    effect(transaction)
                self.ending.settle(transaction, held)
        except LeaseLost:
            return Outcome.LOST
        except Postponed as error:
            return _Failure(log.describe(error), final=False, postponed_s=error.delay_s)
        except PermanentError as error:
            return _Failure(log.describe(error), final=True)
        except Exception as error:  # noqa: BLE001
            # Of ours that pass; and programming errors, which the next version may have repaired.
            _LOG.warning("message.failed", exc_info=error, attempt=held.attempt + 1)
            return _Failure(log.describe(error), final=False)
        return Outcome.HANDLED if first else Outcome.REPEATED

    def _record(
        self, held: Delivery, envelope: Envelope | None, failure: _Failure, stop: threading.Event
    ) -> Outcome:
        delay_s = 0.1
        while True:
            try:
                return self._recorded(held, envelope, failure)
            except LeaseLost:
                return Outcome.LOST
            except DatabaseUnavailable as error:
                _LOG.warning("outcome.not_recorded", error=log.describe(error), delay_s=delay_s)
            if stop.wait(delay_s):
                return Outcome.UNRECORDED
            delay_s = min(delay_s * 2, 5.0)

    def _recorded(self, held: Delivery, envelope: Envelope | None, failure: _Failure) -> Outcome:
        own = self.handlings[held.queue].retry
        policy = own or topology.QUEUES[topology.queue_of(held.queue)].retry
        attempts = held.attempt + 1
        if failure.postponed_s is not None:
            again = Again(held.attempt, failure.postponed_s, failure.reason)
            return self._later(held, again, Outcome.POSTPONED)
        if not failure.final and attempts < policy.attempts:
            again = Again(attempts, policy.delay_s(attempts), failure.reason)
            return self._later(held, again, Outcome.RETRIED)
        effect = self._exhausted(held, envelope, failure.reason)
        try:
            return self._buried(held, failure.reason, attempts, effect)
        except (LeaseLost, DatabaseUnavailable):
            raise
        except Exception as error:
            if effect is None:
                raise
            _LOG.exception("on_exhausted.failed", exc_info=error)
            return self._buried(held, failure.reason, attempts, None)

    def _later(self, held: Delivery, again: Again, outcome: Outcome) -> Outcome:
        with self.database.transaction() as transaction:
            if self._handled_before(transaction, held):
                return Outcome.REPEATED
            self.ending.retry(transaction, held, again)
        if outcome is Outcome.RETRIED:
            _LOG.info("message.retried", attempt=again.attempt, delay_s=again.delay_s)
        else:
            _LOG.debug("message.postponed", delay_s=again.delay_s, reason=again.reason)
        return outcome

    def _exhausted(self, held: Delivery, envelope: Envelope | None, reason: str) -> Effect | None:
        on_exhausted = self.handlings[held.queue].on_exhausted
        if on_exhausted is None or envelope is None:
            return None
        try:
            return on_exhausted(envelope, reason)
        except Exception as error:  # noqa: BLE001
            # The dead letter must be made whatever else fails.
            _LOG.exception("on_exhausted.failed", exc_info=error)
            return None

    def _buried(self, held: Delivery, reason: str, attempts: int, effect: Effect | None) -> Outcome:
        with self.database.transaction() as transaction:
            if self._handled_before(transaction, held):
                return Outcome.REPEATED
            new = outbox.bury(transaction, held, reason, attempts)
            if new and effect is not None:
                effect(transaction)
            self.ending.settle(transaction, held)
        _LOG.error("message.dead", reason=reason, attempts=attempts)
        return Outcome.DEAD

    def _handled_before(self, transaction: Transaction, held: Delivery) -> bool:
        """Tell whether another consumer handled it meanwhile; then this failure means nothing."""
        found = transaction.connection.execute(
            select(inbox.c.message_id).where(
                inbox.c.queue == held.queue, inbox.c.message_id == held.message_id
            )
        ).first()
        if found is None:
            return False
        self.ending.settle(transaction, held)
        return True


def _envelope_or_none(held: Delivery) -> Envelope | None:
    try:
        return catalogue.decode(held.body)
    except catalogue.UndecodableMessage:
        return None
