"""The forms of messaging, each of which passes the same tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import create_engine

from message_contracts import topology
from service_runtime.database import Database
from service_runtime.messaging.consumer import Handler, Handling
from service_runtime.messaging.forms import Messaging
from service_runtime.settings import EMBEDDED
from tests.integration.service_runtime.journeys import Form, fast_queues, ledger

FORMS = ("sqlite", "postgresql", "rabbitmq")

Consume = Callable[..., None]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    if request.param == "sqlite":
        made = Form(request.getfixturevalue("sqlite_url"), EMBEDDED)
    elif request.param == "postgresql":
        made = Form(request.getfixturevalue("postgresql_database_url"), EMBEDDED)
    else:
        made = Form(
            request.getfixturevalue("postgresql_database_url"),
            request.getfixturevalue("rabbitmq_vhost_url"),
        )
    engine = create_engine(made.database_url)
    ledger.create(engine)
    engine.dispose()
    return made


@pytest.fixture
def database(form: Form) -> Iterator[Database]:
    opened = form.open_database()
    yield opened
    opened.close()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays between attempts."""
    for name, queue in fast_queues().items():
        monkeypatch.setitem(topology.QUEUES, name, queue)


@pytest.fixture
def messaging(form: Form, database: Database) -> Iterator[Messaging]:
    with Messaging(database, form.broker_url, "tests") as opened:
        yield opened


@pytest.fixture
def consume(messaging: Messaging) -> Iterator[Consume]:
    """Consume in the background, until the test ends."""
    with ExitStack() as stack:

        def start(
            handlers: Mapping[str, Handler | Handling], *, prefetch: int = 16, **how: Any
        ) -> None:
            stop = threading.Event()
            thread = threading.Thread(
                target=messaging.consume,
                args=(handlers, stop),
                kwargs={"prefetch": prefetch, **how},
            )
            thread.start()
            stack.callback(thread.join)
            stack.callback(stop.set)

        yield start
