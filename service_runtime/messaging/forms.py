"""The two forms of messaging behind one face: a service cannot tell which it runs in."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from service_runtime.database import Database
from service_runtime.messaging.at_once import ONE, AtOnce
from service_runtime.messaging.consumer import Handler, Handling
from service_runtime.messaging.embedded import BRANCH_LOOK_S, EmbeddedConsumer, Gate
from service_runtime.settings import EMBEDDED

PREFETCH = 16
HANDLER_DEADLINE_S = 900.0


class Messaging:
    """The messaging of one process, as a context: the relay runs inside it. Make it after forking.

    Sending is ``outbox.send``; in the distributed form it needs this context to be open, or
    waits for another process whose context is.
    """

    def __init__(self, database: Database, broker_url: str, service: str) -> None:
        self._database = database
        self._broker_url = broker_url
        self._service = service
        self._opened = False
        if database.via_relay != (broker_url != EMBEDDED):
            raise ValueError("the database must be opened with via_relay where a broker is used")

    def __enter__(self) -> Self:
        if self._broker_url != EMBEDDED:
            # The embedded form does not need pika.
            from service_runtime.messaging.rabbitmq import RabbitMQ  # noqa: PLC0415
            from service_runtime.messaging.relay import Relay  # noqa: PLC0415

            self._broker = RabbitMQ(self._broker_url, self._service)
            self._relay = Relay(self._database, self._broker)
            self._broker.start()
            self._relay.start()
        self._opened = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened = False
        if self._broker_url != EMBEDDED:
            self._relay.close()
            self._broker.close()

    def consume(
        self,
        handlers: Mapping[str, Handler | Handling],
        stop: threading.Event,
        *,
        prefetch: int = PREFETCH,
        handler_deadline_s: float = HANDLER_DEADLINE_S,
        look_s: float | None = None,
        at_once: AtOnce = ONE,
    ) -> None:
        """Handle the messages of these queues until ``stop`` is set, earlier queues first.

        Parameters
        ----------
        prefetch
            How many messages are taken at once; 1 where handling is long or lanes matter.
        handler_deadline_s
            After this long a handler is taken to hang, and the process leaves with code 70.
        look_s
            In the embedded form, how often to look for what other processes have sent; as often as
            is cheap by default.
        at_once
            How many messages are handled at the same time, in threads; handlers must bear that.
        """
        handlings = {
            queue: handler if isinstance(handler, Handling) else Handling(handler)
            for queue, handler in handlers.items()
        }
        if self._broker_url == EMBEDDED:
            EmbeddedConsumer(
                self._database,
                handlings,
                prefetch=prefetch,
                handler_deadline_s=handler_deadline_s,
                look_s=look_s,
                at_once=at_once,
            ).run(stop)
            return
        from service_runtime.messaging.broker_consumer import BrokerConsumer  # noqa: PLC0415

        BrokerConsumer(
            self._database,
            self._broker,
            handlings,
            prefetch=prefetch,
            handler_deadline_s=handler_deadline_s,
            at_once=at_once,
        ).run(stop)

    def consume_branch(
        self,
        branch: str,
        handling: Handling,
        stop: threading.Event,
        *,
        gate: Gate,
        handler_deadline_s: float,
    ) -> None:
        """Handle what is put into a branch, one by one, until ``stop`` is set.

        Nothing is taken while its gate is closed. The rows of a branch are consumed straight from
        the table, in both forms.
        """
        EmbeddedConsumer(
            self._database,
            {branch: handling},
            prefetch=1,
            handler_deadline_s=handler_deadline_s,
            look_s=BRANCH_LOOK_S,
            gate=gate,
        ).run(stop)

    def ready(self) -> bool:
        """Tell whether messages can leave now."""
        if not self._opened:
            return False
        return self._broker_url == EMBEDDED or self._broker.wait_connected(0)
