"""A service as services are written, whose only effect is a row in the ledger."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from message_contracts import topology
from message_contracts.envelope import Envelope
from message_contracts.ingest import StudyOpened
from service_runtime.messaging import consumer
from service_runtime.messaging.consumer import Effect
from service_runtime.process import Service, run_service
from service_runtime.settings import ServiceSettings
from tests.integration.service_runtime.journeys import fast_queues, noted

POISON = "1.2.826.666"
CLAIM_LIMIT = 5
"""Smaller than the real one, so that a test need not start so many processes."""


class ConsumingSettings(ServiceSettings):
    handling_s: float = 0.0
    handler_deadline_s: float = 900.0
    started_file: Path | None = None


def serve(service: Service[ConsumingSettings]) -> None:
    settings = service.settings

    def handle(envelope: Envelope) -> Effect:
        if settings.started_file is not None:
            settings.started_file.touch()
        if envelope.data(StudyOpened).study_instance_uid == POISON:
            os._exit(139)
        threading.Event().wait(settings.handling_s)
        return noted(envelope)

    service.ready()
    service.messaging.consume(
        {topology.WORKFLOW: handle},
        service.stop,
        handler_deadline_s=settings.handler_deadline_s,
    )


if __name__ == "__main__":
    topology.QUEUES.update(fast_queues())
    consumer.CLAIM_LIMIT = CLAIM_LIMIT
    run_service("consuming_service", ConsumingSettings, serve)
