"""What a retry by way of the relay must not lose."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import delete, select

from service_runtime.database import Database
from service_runtime.messaging import outbox
from service_runtime.messaging.broker_consumer import BrokerEnding
from service_runtime.messaging.outbox import Again, Delivery
from service_runtime.messaging.tables import delivery
from tests.integration.service_runtime.journeys import make_due

AGAIN = Again(attempt=2, delay_s=60.0, reason="a person has to decide")


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    opened = Database(request.getfixturevalue(request.param))
    yield opened
    opened.close()


@pytest.fixture
def published(database: Database) -> Delivery:
    """Have the relay publish a message, without having its confirm yet."""
    with database.transaction() as transaction:
        outbox.keep(transaction, "1", "workflow", b"{}")
        outbox.deliver(transaction, "1", ["workflow"])
    make_due(database)
    with database.transaction() as transaction:
        [claimed] = outbox.claim(transaction, "workflow", 1, "the relay", 60)
    return claimed


def test_a_retry_that_overtakes_the_relays_confirm_is_not_lost(
    database: Database, published: Delivery
) -> None:
    received = replace(published, lease_token="")

    with database.transaction() as transaction:
        BrokerEnding().retry(transaction, received, AGAIN)
    with database.transaction() as transaction:
        outbox.settle_all(transaction, [published])

    with database.reading() as connection:
        [row] = connection.execute(select(delivery)).all()
    assert (row.attempt, row.last_error, row.lease_token) == (2, AGAIN.reason, "")
    assert row.due_at > time.time()


def test_a_retry_after_the_relays_confirm_is_a_row_of_its_own(
    database: Database, published: Delivery
) -> None:
    with database.transaction() as transaction:
        transaction.connection.execute(delete(delivery))

    with database.transaction() as transaction:
        BrokerEnding().retry(transaction, replace(published, lease_token=""), AGAIN)

    with database.reading() as connection:
        [row] = connection.execute(select(delivery)).all()
    assert (row.queue, row.attempt) == ("workflow", 2)
