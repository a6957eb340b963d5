"""What messaging forgets, and what it never does; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import insert, select

from service_runtime.database import Database
from service_runtime.messaging import forgetting
from service_runtime.messaging.forgetting import forget
from service_runtime.messaging.tables import dead_letter, delivery, inbox, message

NOW = datetime(2026, 7, 4, tzinfo=UTC)
OLD = NOW - timedelta(days=91)
QUEUE = "workflow"


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.close()


def add(database: Database, table: object, **values: object) -> None:
    with database.transaction() as transaction:
        transaction.connection.execute(insert(table), values)


def a_message(
    database: Database, at: datetime = OLD, *, waits: bool = False, handled: bool = True
) -> str:
    message_id = str(uuid4())
    add(database, message, id=message_id, routing_key="x", body=b"{}", created_at=at)
    if handled:
        add(database, inbox, queue=QUEUE, message_id=message_id, at=at)
    if waits:
        add(database, delivery, queue="report", message_id=message_id, due_at=0)
    return message_id


def a_dead_letter(database: Database, message_id: str, resolved_at: datetime | None) -> None:
    add(
        database,
        dead_letter,
        id=str(uuid4()),
        queue="report",
        message_id=message_id,
        routing_key="x",
        body=b"{}",
        reason="",
        attempts=1,
        at=OLD,
        resolved_at=resolved_at,
    )


def left(database: Database) -> dict[str, set[str]]:
    with database.reading() as connection:
        return {
            "messages": set(connection.execute(select(message.c.id)).scalars()),
            "inbox": set(connection.execute(select(inbox.c.message_id)).scalars()),
            "dead letters": set(connection.execute(select(dead_letter.c.message_id)).scalars()),
        }


def test_what_was_handled_long_ago_is_forgotten(database: Database) -> None:
    a_message(database)
    young = a_message(database, NOW - timedelta(days=89))

    assert forget(database, NOW) == 2

    assert left(database) == {"messages": {young}, "inbox": {young}, "dead letters": set()}


def test_what_may_still_be_delivered_is_remembered(database: Database) -> None:
    waiting = a_message(database, waits=True)

    assert forget(database, NOW) == 0

    assert left(database)["messages"] == left(database)["inbox"] == {waiting}


def test_what_a_person_may_replay_is_remembered_by_who_handled_it(database: Database) -> None:
    dead = a_message(database)
    a_dead_letter(database, dead, None)

    forget(database, NOW)

    assert left(database)["inbox"] == left(database)["dead letters"] == {dead}


def test_a_decision_about_a_dead_letter_is_remembered_for_a_year(database: Database) -> None:
    a_dead_letter(database, "long ago", NOW - timedelta(days=366))
    a_dead_letter(database, "lately", NOW - timedelta(days=364))

    assert forget(database, NOW) == 1

    assert left(database)["dead letters"] == {"lately"}


def test_any_number_is_forgotten_piece_by_piece(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "_BATCH", 2)
    for _ in range(5):
        a_message(database)

    assert forget(database, NOW) == 10
    assert forget(database, NOW) == 0
