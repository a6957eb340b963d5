from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from message_contracts import topology
from message_contracts.envelope import Envelope
from service_runtime.change_watch import ChangeWatch
from service_runtime.database import Database
from service_runtime.messaging import embedded, outbox
from service_runtime.messaging.consumer import Effect, Handling
from service_runtime.messaging.embedded import EmbeddedConsumer
from tests.integration.service_runtime.journeys import make_due, send_all, study_opened


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


def test_a_clock_that_is_set_back_does_not_prolong_a_sleep(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_back, handled, stop = threading.Event(), threading.Event(), threading.Event()
    closed_s = [0.3, 0.0]

    def handler(_envelope: Envelope) -> Effect:
        handled.set()
        stop.set()
        return lambda _transaction: None

    def now() -> float:
        return time.time() - (3600 if set_back.is_set() else 0)

    def changed(watch: ChangeWatch) -> bool:
        if len(closed_s) == 1:
            set_back.set()
        return look(watch)

    look = ChangeWatch.changed
    monkeypatch.setattr(ChangeWatch, "changed", changed)
    monkeypatch.setattr(embedded, "time", SimpleNamespace(time=now, monotonic=time.monotonic))
    send_all(database, study_opened())
    make_due(database)
    too_late = threading.Timer(30, stop.set)
    too_late.start()

    EmbeddedConsumer(
        database,
        {topology.WORKFLOW: Handling(handler)},
        prefetch=1,
        handler_deadline_s=60,
        gate=lambda: closed_s.pop(0),
    ).run(stop)

    too_late.cancel()
    assert set_back.is_set()
    assert handled.is_set()
