from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    literal,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from service_runtime.database import Database, UtcDateTime
from service_runtime.statements import Change, Lookup

thing = Table(
    "thing_of_statements",
    MetaData(),
    Column("id", String(8), primary_key=True),
    Column("values", JSON, nullable=False),
    Column("at", UtcDateTime),
    Column("good", Boolean, nullable=False),
)
ADD = Change(thing.insert())
FIND = Lookup(
    lambda ids: (
        select(thing.c.id, thing.c["values"], thing.c.at, thing.c.good, literal("x").label("mark"))
        .where(thing.c.id.in_(ids))
        .order_by(thing.c.id)
    )
)
SET = Change(update(thing).where(thing.c.id == bindparam("which")).values(at=bindparam("when")))
SPOIL = Change(update(thing).where(thing.c.id == bindparam("which")).values(good=False))
REMOVE = Change(delete(thing).where(thing.c.id == bindparam("which")))
NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)


def a_thing(name: str) -> dict[str, object]:
    return {"id": name, "values": ["a", 1], "at": NOON, "good": True}


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    with database.transaction() as transaction:
        thing.create(transaction.connection)
    yield database
    database.close()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64])
def test_what_was_added_is_found_with_its_types(database: Database, count: int) -> None:
    names = [f"{number:03}" for number in range(count)]
    with database.transaction() as transaction:
        ADD.run(transaction, [a_thing(name) for name in names])

    with database.transaction() as transaction:
        found = FIND.rows(transaction, [*names, "missing"])

    assert found == [(name, ["a", 1], NOON, True, "x") for name in names]


def test_what_rows_share_is_kept_with_each_and_nothing_is_taken_for_sql(
    database: Database,
) -> None:
    shared = ["it's", "100 %s", "a\\b", "grün"]
    rows = [
        a_thing(name) | {"values": shared, "good": number % 2 == 0}
        for number, name in enumerate(("%s", "'", "\\", "1", "é"))
    ]
    with database.transaction() as transaction:
        ADD.run(transaction, [*rows, a_thing("equal") | {"values": [1]}])
        found = FIND.rows(transaction, [*(str(row["id"]) for row in rows), "equal"])

    assert {row[0]: row[1:4] for row in found} == {
        "equal": ([1], NOON, True),
        **{row["id"]: (shared, NOON, row["good"]) for row in rows},
    }


def test_many_rows_change_at_once_and_none_changes_nothing(database: Database) -> None:
    later = (NOON + timedelta(hours=1)).astimezone(timezone(timedelta(hours=5)))
    with database.transaction() as transaction:
        ADD.run(transaction, [a_thing("a"), a_thing("b"), a_thing("c")])
        SET.run(transaction, [])
        SET.run(transaction, [{"which": "a", "when": later}, {"which": "b", "when": None}])
        found = FIND.rows(transaction, ["a", "b", "c"])

    assert [row[2] for row in found] == [later, None, NOON]


def test_a_statement_of_one_parameter_brings_its_own_values(database: Database) -> None:
    with database.transaction() as transaction:
        ADD.run(transaction, [a_thing("a"), a_thing("b"), a_thing("c")])
        SPOIL.run(transaction, [{"which": "a"}, {"which": "b"}])
        REMOVE.run(transaction, [{"which": "a"}])
        found = FIND.rows(transaction, ["a", "b", "c"])

    assert [(row[0], row[3]) for row in found] == [("b", False), ("c", True)]


def add_and_fail(database: Database) -> None:
    with database.transaction() as transaction:
        ADD.run(transaction, [a_thing("a")])
        raise ZeroDivisionError


def test_a_statement_is_part_of_its_transaction(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        add_and_fail(database)

    with database.transaction() as transaction:
        assert FIND.rows(transaction, ["a"]) == []


def test_a_driver_s_error_is_sqlalchemys_and_quotes_no_value(database: Database) -> None:
    with database.transaction() as transaction:
        ADD.run(transaction, [a_thing("a")])

    with pytest.raises(IntegrityError) as raised, database.transaction() as transaction:
        ADD.run(transaction, [a_thing("b"), a_thing("a") | {"values": ["a secret"]}])

    assert "secret" not in str(raised.value)
    with database.transaction() as transaction:
        assert [row[0] for row in FIND.rows(transaction, ["a", "b"])] == ["a"]
