"""What people decide of what came in: the consumer of the queue ``intake``."""

import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

import structlog
from typing_extensions import override

from dicom_listener import announcer
from message_contracts import topology
from message_contracts.envelope import Envelope
from message_contracts.intake import CompletionRequested
from message_contracts.message import Message
from service_runtime.background import Background
from service_runtime.errors import PermanentError
from service_runtime.messaging.consumer import Effect, Handler, Handling
from service_runtime.messaging.forms import Messaging
from service_runtime.process import EXIT_FAILED

log = structlog.get_logger()

_LOOK_S = 0.2
"""People decide now and then, and instances are committed hundreds of times a second."""


class NotForTheListener(PermanentError):
    """A message of the queue is of a kind that nobody here reads."""


def intake_handler(handlers: Mapping[type[Message], Handler]) -> Handler:
    """Return the handler of the queue, which takes each kind of message to its own."""

    def handle(envelope: Envelope) -> Effect:
        handler = handlers.get(type(envelope.body))
        if handler is None:
            raise NotForTheListener(f"{envelope.body.TYPE}: the listener does not read it")
        return handler(envelope)

    return handle


def on_completion_requested(now: Callable[[], datetime]) -> Handler:
    """Return what announces a study that a person calls complete."""

    def handle(envelope: Envelope) -> Effect:
        body = envelope.body
        assert isinstance(body, CompletionRequested)  # noqa: S101 - it is registered for no other
        return partial(announcer.force, study_instance_uid=body.study_instance_uid, at=now())

    return handle


class Intake(Background):
    """A thread that consumes the queue."""

    def __init__(self, messaging: Messaging, handling: Handling) -> None:
        super().__init__("intake")
        self._messaging = messaging
        self._handling = handling

    @override
    def work(self, stopping: threading.Event) -> None:
        try:
            self._messaging.consume({topology.INTAKE: self._handling}, stopping, look_s=_LOOK_S)
        except Exception:
            # A process that does not hear what people decide has to be started anew.
            log.exception("intake.failed")
            os._exit(EXIT_FAILED)
