"""Consuming from the broker: acknowledged once the outcome is in the database."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from uuid import UUID

import structlog

from message_contracts import catalogue
from service_runtime.database import Database, Transaction
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Consumer, Handling, Outcome
from service_runtime.messaging.embedded import HANG_EXIT_CODE
from service_runtime.messaging.lanes import Received
from service_runtime.messaging.outbox import Again, Delivery
from service_runtime.messaging.rabbitmq import RabbitMQ

_LOOK_UP_S = 0.5
_FLUSH_S = 0.5
_LOG = structlog.get_logger()


class BrokerEnding:
    """Ends deliveries that the broker holds: a retry is a row that the relay publishes when due."""

    def settle(self, transaction: Transaction, held: Delivery) -> None:
        """Do nothing: the acknowledgment that follows the commit ends it."""

    def retry(self, transaction: Transaction, held: Delivery, again: Again) -> None:
        """Have the relay publish it again, later, to this queue alone."""
        outbox.keep(transaction, held.message_id, held.routing_key, held.body)
        outbox.deliver(
            transaction,
            held.message_id,
            [held.queue],
            delay_s=again.delay_s,
            attempt=again.attempt,
            error=again.reason,
        )


class BrokerConsumer:
    """Handles the messages of its queues one by one, those of earlier queues first.

    Parameters
    ----------
    prefetch
        How many messages of each queue are held. 1 where handling is long.
    handler_deadline_s
        A handler that has not returned by then hangs: the failure is recorded and the process
        leaves, because a thread cannot be stopped.
    """

    def __init__(
        self,
        database: Database,
        broker: RabbitMQ,
        handlings: Mapping[str, Handling],
        *,
        prefetch: int,
        handler_deadline_s: float,
    ) -> None:
        self._broker = broker
        self._queues = tuple(handlings)
        self._consumer = Consumer(database, handlings, BrokerEnding())
        self._prefetch = prefetch
        self._deadline_s = handler_deadline_s
        self._received: Received | None = None

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set; what is being handled then is finished."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), name="watch", daemon=True)
        watcher.start()
        self._broker.consume(self._queues, self._prefetch)
        try:
            received: Received | None = None
            while not stop.is_set():
                received = self._broker.lanes.take(_LOOK_UP_S, after=received)
                if received is not None:
                    self._handle(received, stop)
        finally:
            ended.set()
            watcher.join()

    def _handle(self, received: Received, stop: threading.Event) -> None:
        held = delivery_of(received)
        self._received = received
        try:
            if received.death is not None:
                reason = f"the broker gave it up: {received.death}"
                outcome = self._consumer.give_up(held, reason, stop)
            else:
                outcome = self._consumer.handle(held, stop)
        finally:
            self._received = None
        if outcome is not Outcome.UNRECORDED:
            self._broker.ack(received)

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(min(1.0, self._deadline_s / 2)):
            current, received = self._consumer.current, self._received
            if current and received and time.monotonic() - current[1] > self._deadline_s:
                self._leave(current[0], received)

    def _leave(self, hanging: Delivery, received: Received) -> None:
        _LOG.error("handler.hangs", queue=hanging.queue, deadline_s=self._deadline_s)
        give_up = threading.Event()
        give_up.set()
        reason = f"the handler did not return within {self._deadline_s:g} s"
        if self._consumer.fail(hanging, reason, give_up) is not Outcome.UNRECORDED:
            self._broker.ack(received)
            # The connection's thread sends the acknowledgment; there is nobody to tell us when.
            give_up.clear()
            give_up.wait(_FLUSH_S)
        os._exit(HANG_EXIT_CODE)


def delivery_of(received: Received) -> Delivery:
    """Return a received message as the consumer takes it, under the id that its body tells."""
    try:
        message_id = str(catalogue.decode(received.body).id)
    except catalogue.UndecodableMessage:
        message_id = _uuid_or_nothing(received.message_id)
    return Delivery(
        queue=received.queue,
        message_id=message_id,
        routing_key=received.routing_key[:100],
        body=received.body,
        attempt=received.attempt,
        claims=received.delivery_count + 1,
        lease_token="",
    )


def _uuid_or_nothing(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        return ""
