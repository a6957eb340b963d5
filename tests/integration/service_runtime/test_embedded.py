from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from message_contracts import topology
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Effect, Handling
from service_runtime.messaging.embedded import EmbeddedConsumer
from tests.integration.service_runtime.journeys import send_all, study_opened


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    opened = Database(sqlite_url)
    yield opened
    opened.close()


def test_leases_are_renewed_again_after_an_error_that_nobody_foresaw(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, renewed, stop = [], threading.Event(), threading.Event()

    def renew(*_: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("nobody foresaw it")
        renewed.set()

    def handler(_envelope: Envelope) -> Effect:
        came = renewed.wait(60)
        stop.set()
        assert came
        return lambda _transaction: None

    monkeypatch.setattr(outbox, "renew", renew)
    send_all(database, study_opened())

    EmbeddedConsumer(
        database,
        {topology.WORKFLOW: Handling(handler)},
        prefetch=1,
        handler_deadline_s=60,
        lease_s=0.6,
    ).run(stop)

    assert renewed.is_set()
