"""Consuming from the broker: acknowledged once the outcome is in the database."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from functools import partial
from uuid import UUID

import structlog

from message_contracts import catalogue
from service_runtime.database import Database, Transaction
from service_runtime.messaging import outbox
from service_runtime.messaging.at_once import ONE, AtOnce, Threads
from service_runtime.messaging.consumer import Consumer, Handling, Outcome
from service_runtime.messaging.embedded import HANG_EXIT_CODE
from service_runtime.messaging.lanes import Received
from service_runtime.messaging.outbox import Again, Delivery
from service_runtime.messaging.rabbitmq import RabbitMQ

_LOOK_UP_S = 0.5
_FLUSH_S = 0.5
_SUSPICIOUS = 2
"""Given to somebody so often before, a message is handled alone."""
_LOG = structlog.get_logger()


class BrokerEnding:
    """Ends deliveries that the broker holds: a retry is a row that the relay publishes when due."""

    def settle(self, transaction: Transaction, held: Delivery) -> None:
        """Do nothing: the acknowledgment that follows the commit ends it."""

    def retry(self, transaction: Transaction, held: Delivery, again: Again) -> None:
        """Have the relay publish it again, later, to this queue alone."""
        outbox.keep(transaction, held.message_id, held.routing_key, held.body)
        outbox.deliver_again(transaction, held, again)


class BrokerConsumer:
    """Handles the messages of its queues, those of earlier queues first.

    Parameters
    ----------
    prefetch
        How many messages of each queue are held. 1 where handling is long.
    handler_deadline_s
        A handler that has not returned by then hangs: the failure is recorded and the process
        leaves, because a thread cannot be stopped.
    at_once
        How many are handled at the same time; so many are then held, whatever ``prefetch`` is.
    """

    def __init__(
        self,
        database: Database,
        broker: RabbitMQ,
        handlings: Mapping[str, Handling],
        *,
        prefetch: int,
        handler_deadline_s: float,
        at_once: AtOnce = ONE,
    ) -> None:
        self._broker = broker
        self._queues = tuple(handlings)
        self._consumer = Consumer(database, handlings, BrokerEnding())
        self._prefetch = at_once.of_later_queues if at_once.in_all > 1 else prefetch
        self._at_once = at_once
        self._deadline_s = handler_deadline_s
        self._received: dict[Delivery, Received] = {}

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set; what is being handled then is finished."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,), name="watch", daemon=True)
        watcher.start()
        self._broker.consume(self._queues, self._prefetch)
        try:
            if self._at_once.in_all > 1:
                self._run_side_by_side(stop)
            else:
                self._run_one_by_one(stop)
        finally:
            ended.set()
            watcher.join()

    def _run_one_by_one(self, stop: threading.Event) -> None:
        received: Received | None = None
        while not stop.is_set():
            received = self._broker.lanes.take(_LOOK_UP_S, after=received)
            if received is not None:
                self._handle(received, stop)

    def _run_side_by_side(self, stop: threading.Event) -> None:
        lanes, first = self._broker.lanes, self._queues[0]
        threads = Threads(self._at_once, lanes.look_again)
        try:
            while not stop.is_set():
                if not threads.wait_room(_LOOK_UP_S, is_first=True):
                    continue
                received = lanes.take(
                    _LOOK_UP_S, only_first=lambda: threads.room(is_first=False) <= 0
                )
                if received is None:
                    continue
                if received.delivery_count >= _SUSPICIOUS:
                    # It may be the end of this process: the others are to be done before.
                    threads.wait_idle()
                threads.handle(
                    partial(self._handle, received, stop), is_first=received.queue == first
                )
                if received.delivery_count >= _SUSPICIOUS:
                    threads.wait_idle()
        finally:
            threads.close()

    def _handle(self, received: Received, stop: threading.Event) -> None:
        held = delivery_of(received)
        self._received[held] = received
        try:
            if received.death is not None:
                reason = f"the broker gave it up: {received.death}"
                outcome = self._consumer.give_up(held, reason, stop)
            else:
                outcome = self._consumer.handle(held, stop)
        finally:
            # Given twice by the broker, and handled side by side, two are equal.
            self._received.pop(held, None)
        if outcome is not Outcome.UNRECORDED:
            self._broker.ack(received)

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(min(1.0, self._deadline_s / 2)):
            current = self._consumer.current
            received = self._received.get(current[0]) if current else None
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
