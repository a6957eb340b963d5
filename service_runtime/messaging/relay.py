"""The relay: publishes what this and other processes have committed, until the broker has it."""

from __future__ import annotations

import threading
import time
from uuid import uuid4

import structlog

from service_runtime.database import Database
from service_runtime.errors import TransientError
from service_runtime.messaging import backlog, outbox
from service_runtime.messaging.outbox import Delivery
from service_runtime.messaging.rabbitmq import Publication, RabbitMQ
from service_runtime.messaging.tables import RELAY_QUEUE
from service_runtime.process_identity import token_of
from service_runtime.telemetry import log, metrics

BATCH = 200
LEFTOVERS_S = 1.0
"""How often to look for what falls due, and for what a process left behind that died."""

_GATHER_S = 0.005
_LEASE_S = 10.0
_CONFIRM_TIMEOUT_S = 8.0
_UNCONFIRMED_DELAY_S = 2.0
_LOG = structlog.get_logger()


class Relay:
    """A thread that publishes due deliveries with confirms and deletes those confirmed.

    Rows of the relay's own queue go to the exchange; others are retries and replays and go to
    their queue alone.
    """

    def __init__(self, database: Database, broker: RabbitMQ) -> None:
        self._database = database
        self._broker = broker
        self._token = f"{token_of()}/{uuid4().hex[:12]}"
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Begin; woken by each commit of this process that sends something."""
        self._database.on_send(self._woken.set)
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Publish what is due, as far as the broker is there, and end."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(timeout=timeout_s)
        self._database.forget_waker(self._woken.set)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.is_set()
            if self._broker.wait_connected(0 if stopping else LEFTOVERS_S):
                self._woken.clear()
                try:
                    while self._publish_some():
                        pass
                except TransientError as error:
                    _LOG.warning("relay.interrupted", error=log.describe(error))
                    self._stopping.wait(LEFTOVERS_S)
                except Exception as error:  # noqa: BLE001
                    # This thread is the only way out for messages: it must not end.
                    _LOG.exception("relay.failed", exc_info=error)
                    self._stopping.wait(LEFTOVERS_S)
                if not stopping and self._woken.wait(self._pause_s()):
                    # What is committed meanwhile shares this batch's transactions and confirms.
                    self._stopping.wait(_GATHER_S)

    def _pause_s(self) -> float:
        """Return how long there is nothing to do, as far as this process can know."""
        try:
            due_at = backlog.next_due_at(self._database)
        except TransientError:
            return LEFTOVERS_S
        if due_at is None:
            return LEFTOVERS_S
        return min(max(due_at - time.time(), 0.005), LEFTOVERS_S)

    def _publish_some(self) -> bool:
        """Publish a batch; tell whether to go on at once."""
        # A power cut may undo a lease or a deletion: then the message is published again, which its
        # consumer's inbox is for.
        with self._database.transaction(durable=False) as transaction:
            claimed = outbox.claim(transaction, None, BATCH, self._token, _LEASE_S)
        if not claimed:
            return False
        try:
            confirmed = self._broker.publish(
                [_publication(held) for held in claimed], _CONFIRM_TIMEOUT_S
            )
        except TransientError:
            with self._database.transaction() as transaction:
                outbox.give_back(transaction, claimed)
            raise
        done = [held for held, ok in zip(claimed, confirmed, strict=True) if ok]
        left = [held for held, ok in zip(claimed, confirmed, strict=True) if not ok]
        with self._database.transaction(durable=False) as transaction:
            outbox.settle_all(transaction, done)
            outbox.give_back(transaction, left, delay_s=_UNCONFIRMED_DELAY_S, error="not confirmed")
        for held in done:
            metrics.MESSAGES_PUBLISHED.labels(held.routing_key).inc()
        if left:
            _LOG.warning("relay.not_confirmed", count=len(left))
        return len(claimed) == BATCH and not left


def _publication(held: Delivery) -> Publication:
    return Publication(
        message_id=held.message_id,
        routing_key=held.routing_key,
        body=held.body,
        queue=None if held.queue == RELAY_QUEUE else held.queue,
        attempt=held.attempt,
    )
