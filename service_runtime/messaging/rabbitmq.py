"""RabbitMQ, and the only module that knows pika: one connection, kept by a thread, for ever.

The thread does the network and nothing else. Whoever publishes or handles does so in a thread of
their own and hands over by a callback, so that a long computation never misses a heartbeat.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pika
import structlog
from pika.exceptions import AMQPError

from message_contracts.topology import DEAD_LETTER_EXCHANGE, EXCHANGE, QUEUES
from service_runtime.errors import TransientError
from service_runtime.messaging.lanes import Lanes, Received

DELIVERY_LIMIT = 20
"""How often the broker itself gives a message to consumers that die of it."""

ATTEMPT_HEADER = "x-countersign-attempt"
_DELIVERY_COUNT = "x-delivery-count"
_FIRST_DEATH_REASON = "x-first-death-reason"
_HEARTBEAT_S = 20
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_PERSISTENT = 2
_NETWORK_ERRORS = (AMQPError, OSError)
_LOG = structlog.get_logger()


class BrokerUnavailable(TransientError):
    """There is no connection to the broker, or it did not confirm in time."""


@dataclass(frozen=True)
class Publication:
    """A message on its way to the broker; to one queue alone where ``queue`` is given."""

    message_id: str
    routing_key: str
    body: bytes
    queue: str | None = None
    attempt: int = 0


class _Batch:
    """Publications that wait for their confirms together."""

    def __init__(self, publications: Sequence[Publication]) -> None:
        self.publications = publications
        self.confirmed = [False] * len(publications)
        self.unanswered = len(publications)
        self.answered = threading.Event()

    def answer(self, index: int, *, confirmed: bool) -> None:
        self.confirmed[index] = confirmed
        self.unanswered -= 1
        if self.unanswered <= 0:
            self.answered.set()


def declare(parameters: Any) -> None:
    """Declare exchanges, quorum queues, their dead-letter queues and bindings, as the topology is.

    Dead-lettering is at least once (which needs ``reject-publish``): the broker keeps a message
    until its dead-letter queue has confirmed it.
    """
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        channel.exchange_declare(DEAD_LETTER_EXCHANGE, "direct", durable=True)
        for queue in QUEUES.values():
            channel.queue_declare(
                queue.dead_letter_queue, durable=True, arguments={"x-queue-type": "quorum"}
            )
            channel.queue_bind(queue.dead_letter_queue, DEAD_LETTER_EXCHANGE, queue.name)
            channel.queue_declare(
                queue.name,
                durable=True,
                arguments={
                    "x-queue-type": "quorum",
                    "x-delivery-limit": DELIVERY_LIMIT,
                    "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
                    "x-dead-letter-routing-key": queue.name,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            )
            for key in queue.routing_keys:
                channel.queue_bind(queue.name, EXCHANGE, key)


class RabbitMQ:
    """The connection of one process to its broker. Make and start it after forking."""

    def __init__(self, url: str, name: str) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.heartbeat = _HEARTBEAT_S
        self._parameters.client_properties = {"connection_name": name}
        self._connection: Any = None
        self._publishing: Any = None
        self._tags = itertools.count(1)
        self._unconfirmed: dict[int, tuple[_Batch, int]] = {}
        self._returned: set[str] = set()
        self._wanted: tuple[str, ...] = ()
        self._prefetch = 1
        self.lanes = Lanes()
        """What has arrived and is to be taken."""

        self._closing = threading.Event()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)

    def start(self) -> None:
        """Connect, in the background, and reconnect whenever the connection is lost."""
        self._thread.start()

    def close(self) -> None:
        """Close the connection; what was not acknowledged is given to somebody else."""
        self._closing.set()
        self._soon(self._close_connection)
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until messages can be published; tell whether they can."""
        return self._connected.wait(timeout_s)

    def publish(self, publications: Sequence[Publication], timeout_s: float) -> list[bool]:
        """Publish, and tell of each whether the broker has it (confirmed, and not returned).

        One that was not confirmed in time may have arrived nevertheless.

        Raises
        ------
        BrokerUnavailable
            There is no connection: nothing was published.
        """
        batch = _Batch(publications)
        if not self._connected.is_set() or not self._soon(lambda: self._publish(batch)):
            raise BrokerUnavailable("broker: not connected")
        batch.answered.wait(timeout_s)
        return list(batch.confirmed)

    def consume(self, queues: Sequence[str], prefetch: int) -> None:
        """Ask for the messages of ``queues``, and for what the broker gave up of them.

        ``prefetch`` bounds what is held of each queue. ``lanes`` prefers earlier queues.
        """
        dead = [QUEUES[name].dead_letter_queue for name in queues]
        self._wanted = (*queues, *dead)
        self.lanes.order(self._wanted)
        self._prefetch = prefetch
        self._soon(self._open_consuming)

    def ack(self, received: Received) -> None:
        """Have the broker forget a message; without effect where the connection was lost since."""

        def acknowledge() -> None:
            if received.channel.is_open:
                received.channel.basic_ack(received.tag)

        self._soon(acknowledge)

    def _soon(self, action: Any) -> bool:
        connection = self._connection
        if connection is None:
            return False
        connection.ioloop.add_callback_threadsafe(action)
        return True

    def _run(self) -> None:
        delay_s = _FIRST_DELAY_S
        while not self._closing.is_set():
            try:
                declare(self._parameters)
                connection = pika.SelectConnection(
                    self._parameters,
                    on_open_callback=self._on_open,
                    on_open_error_callback=self._on_lost,
                    on_close_callback=self._on_lost,
                )
                self._connection = connection
                if self._closing.is_set():
                    self._soon(self._close_connection)
                connection.ioloop.start()
            except _NETWORK_ERRORS as error:
                # The texts of pika's errors hold addresses at most; the class says enough.
                _LOG.warning("broker.away", error=type(error).__name__, delay_s=delay_s)
            except Exception as error:  # noqa: BLE001
                # This thread is the only way to the broker: it must not end.
                _LOG.exception("broker.failed", exc_info=error, delay_s=delay_s)
            if self._connected.is_set():
                delay_s = _FIRST_DELAY_S
            self._forget_connection()
            self._closing.wait(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    def _on_open(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._on_publishing_open)
        if self._wanted:
            self._open_consuming()

    def _on_publishing_open(self, channel: Any) -> None:
        self._publishing = channel
        self._tags = itertools.count(1)
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=self._on_confirming)

    def _on_confirming(self, _frame: object) -> None:
        _LOG.info("broker.connected")
        self._connected.set()

    def _on_lost(self, connection: Any, error: BaseException) -> None:
        if not self._closing.is_set():
            _LOG.warning("broker.lost", error=type(error).__name__)
        connection.ioloop.stop()

    def _on_channel_closed(self, channel: Any, error: BaseException) -> None:
        """Begin anew: a channel that the broker closed is a quarrel that a new one may settle."""
        if not self._closing.is_set():
            _LOG.warning("broker.channel_closed", error=type(error).__name__)
        if channel.connection.is_open:
            channel.connection.close()

    def _close_connection(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if connection.is_open:
            connection.close()
        elif not connection.is_closing:
            connection.ioloop.stop()

    def _forget_connection(self) -> None:
        connection, self._connection = self._connection, None
        self._connected.clear()
        self._publishing = None
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for batch, index in unconfirmed.values():
            batch.answer(index, confirmed=False)
        self._returned.clear()
        # The broker gives these to somebody again; to acknowledge them is no longer possible.
        self.lanes.clear()
        if connection is not None:
            with contextlib.suppress(*_NETWORK_ERRORS):
                connection.ioloop.close()

    def _publish(self, batch: _Batch) -> None:
        for index, publication in enumerate(batch.publications):
            channel = self._publishing
            if channel is None or not channel.is_open:
                batch.answer(index, confirmed=False)
                continue
            self._unconfirmed[next(self._tags)] = (batch, index)
            to_one = publication.queue is not None
            channel.basic_publish(
                exchange="" if to_one else EXCHANGE,
                routing_key=publication.queue if to_one else publication.routing_key,
                body=publication.body,
                properties=pika.BasicProperties(
                    content_type="application/cloudevents+json",
                    delivery_mode=_PERSISTENT,
                    message_id=publication.message_id,
                    type=publication.routing_key,
                    headers={ATTEMPT_HEADER: publication.attempt},
                ),
                mandatory=True,
            )

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        _LOG.error("message.unroutable", message_type=method.routing_key)
        # The confirm of a returned message follows its return.
        self._returned.add(properties.message_id)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        positive = isinstance(method, pika.spec.Basic.Ack)
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._unconfirmed if tag <= method.delivery_tag]
        for tag in tags:
            found = self._unconfirmed.pop(tag, None)
            if found is None:
                continue
            batch, index = found
            message_id = batch.publications[index].message_id
            returned = message_id in self._returned
            self._returned.discard(message_id)
            batch.answer(index, confirmed=positive and not returned)

    def _open_consuming(self) -> None:
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.channel(on_open_callback=self._on_consuming_open)

    def _on_consuming_open(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.basic_qos(prefetch_count=self._prefetch)
        # A queue that is deleted cancels its consumers: begin anew, and declare it again.
        channel.add_on_cancel_callback(lambda _frame: channel.connection.close())
        for queue in self._wanted:
            channel.basic_consume(queue, self._receiver(queue))

    def _receiver(self, queue: str) -> Any:
        dead = {each.dead_letter_queue: each.name for each in QUEUES.values()}

        def receive(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            headers = properties.headers or {}
            death = None
            if queue in dead:
                death = str(headers.get(_FIRST_DEATH_REASON, "dead-lettered"))
            received = Received(
                queue=dead.get(queue, queue),
                message_id=properties.message_id or "",
                routing_key=str(properties.type or method.routing_key),
                body=body,
                attempt=_whole(headers.get(ATTEMPT_HEADER)),
                delivery_count=_whole(headers.get(_DELIVERY_COUNT)),
                death=death,
                tag=method.delivery_tag,
                channel=channel,
            )
            self.lanes.put(queue, received)

        return receive


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
