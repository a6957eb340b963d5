from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError

from service_runtime.database import Database, DatabaseUnavailable, UtcDateTime

moment = Table(
    "moment",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime),
    Column("name", String(40), unique=True),
)
VIENNA = timezone(timedelta(hours=2))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"empty_{request.param}_url")
    return found


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    with opened.transaction() as transaction:
        moment.create(transaction.connection)
    yield opened
    opened.close()


def test_a_moment_comes_back_in_utc_and_sorts_as_moments_do(database: Database) -> None:
    early = datetime(2026, 5, 4, 1, 30, 0, 250000, tzinfo=VIENNA)
    late = datetime(2026, 5, 4, 0, 0, tzinfo=UTC)

    with database.transaction() as transaction:
        transaction.connection.execute(moment.insert(), [{"at": late}, {"at": early}, {"at": None}])

    with database.reading() as connection:
        ordered = connection.execute(
            select(moment.c.at).where(moment.c.at <= late).order_by(moment.c.at)
        ).scalars()
        found = list(ordered)
    assert found == [early, late]
    assert all(each.utcoffset() == timedelta(0) for each in found)


def test_the_folder_that_it_makes_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "data"

    Database(f"sqlite:///{folder / 'countersign.sqlite3'}").close()

    assert folder.stat().st_mode & 0o077 == 0


def test_a_moment_without_a_zone_is_refused(database: Database) -> None:
    naive = datetime(2026, 5, 4)  # noqa: DTZ001

    with pytest.raises(StatementError, match="time zone"), database.transaction() as transaction:
        transaction.connection.execute(moment.insert(), {"at": naive})


def test_what_waits_for_the_commit_runs_after_it_once_and_not_after_a_rollback(
    database: Database,
) -> None:
    seen: list[int] = []

    def look() -> None:
        with database.reading() as connection:
            seen.append(connection.execute(select(func.count()).select_from(moment)).scalar_one())

    with database.transaction() as transaction:
        transaction.connection.execute(moment.insert(), {"name": "a"})
        transaction.after_commit(look)
        transaction.after_commit(look)
    assert seen == [1]

    with pytest.raises(IntegrityError), database.transaction() as transaction:  # noqa: PT012
        transaction.after_commit(look)
        transaction.connection.execute(moment.insert(), {"name": "a"})
    assert seen == [1]


def test_an_error_does_not_quote_the_values(database: Database) -> None:
    twice = [{"id": 7, "name": "DOE^JANE"}, {"id": 7, "name": "DOE^JANE"}]

    with pytest.raises(IntegrityError) as refused, database.transaction() as transaction:
        transaction.connection.execute(moment.insert(), twice)

    assert "DOE" not in str(refused.value)


def test_a_transaction_within_a_transaction_is_refused(database: Database) -> None:
    with database.transaction(), pytest.raises(RuntimeError), database.transaction():
        pass


def test_a_reader_sees_what_is_committed_and_writes_nothing_on_sqlite(
    database: Database,
) -> None:
    with database.transaction() as transaction, database.reading() as connection:
        transaction.connection.execute(moment.insert(), {"name": "a"})
        count = connection.execute(select(func.count()).select_from(moment)).scalar_one()
    assert count == 0

    if database.dialect == "sqlite":
        with pytest.raises(DBAPIError), database.reading() as connection:
            connection.execute(moment.insert(), {"name": "b"})


def test_a_reader_that_failed_leaves_the_next_one_what_is_committed_by_then(
    database: Database,
) -> None:
    for number in range(4):
        with suppress(ZeroDivisionError), database.reading() as connection:
            count = select(func.count()).select_from(moment)
            assert connection.execute(count).scalar_one() == number
            if number % 2:
                raise ZeroDivisionError
        with database.transaction() as transaction:
            transaction.connection.execute(moment.insert(), {"at": datetime.now(UTC)})


def test_a_programming_error_is_not_called_unavailable(database: Database) -> None:
    with pytest.raises(DBAPIError) as wrong, database.reading() as connection:
        connection.execute(text("SELECT nothing FROM nowhere"))

    assert not isinstance(wrong.value, DatabaseUnavailable)


def add_one(url: str, times: int) -> None:
    database = Database(url)
    for _ in range(times):
        with database.transaction() as transaction:
            # Read, then write: where transactions began deferred, two of these fail at once.
            before = transaction.connection.execute(
                select(moment.c.id).where(moment.c.name == "counter").with_for_update()
            ).scalar_one()
            transaction.connection.execute(
                update(moment).where(moment.c.name == "counter").values(id=before + 1)
            )
    database.close()


def test_writers_in_processes_and_threads_queue_and_lose_no_update(
    url: str, database: Database
) -> None:
    with database.transaction() as transaction:
        transaction.connection.execute(moment.insert(), {"id": 0, "name": "counter"})
    context = multiprocessing.get_context("spawn")
    writers: list[object] = [context.Process(target=add_one, args=(url, 50)) for _ in range(2)]
    writers += [threading.Thread(target=add_one, args=(url, 50)) for _ in range(2)]

    for writer in writers:
        writer.start()  # type: ignore[attr-defined]
    for writer in writers:
        writer.join()  # type: ignore[attr-defined]

    with database.reading() as connection:
        assert connection.execute(select(moment.c.id)).scalar_one() == 200


def test_sqlite_writes_ahead_and_syncs_every_commit(empty_sqlite_url: str) -> None:
    database = Database(empty_sqlite_url)

    with database.transaction() as transaction:
        connection = transaction.connection
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }

    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "busy_timeout": 30_000,
        "foreign_keys": 1,
    }
    database.close()


def test_a_commit_of_another_process_is_noticed_once(empty_sqlite_url: str) -> None:
    database = Database(empty_sqlite_url)
    with database.transaction() as transaction:
        moment.create(transaction.connection)
    watch = database.watch()
    assert not watch.changed()

    with closing(sqlite3.connect(empty_sqlite_url.removeprefix("sqlite:///"))) as other:
        other.execute("INSERT INTO moment (name) VALUES ('a')")
        other.commit()

    assert watch.changed()
    assert not watch.changed()
    watch.close()
    database.close()


def test_a_server_that_is_away_is_unavailable() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing")

    with pytest.raises(DatabaseUnavailable) as away, database.transaction():
        pass

    assert isinstance(away.value.__cause__, OperationalError)


@pytest.mark.parametrize(
    ("url", "via_relay", "reason"),
    [
        ("sqlite:///x", True, "use PostgreSQL"),
        ("sqlite://", False, "needs a file"),
        ("mysql://host/db", False, "neither"),
    ],
)
def test_a_pair_that_cannot_work_is_refused(
    url: str, via_relay: bool, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ValueError, match=reason):
        Database(url, via_relay=via_relay)


def test_many_writers_leave_nearly_every_connection_for_others(database: Database) -> None:
    at_once = 12
    together = threading.Barrier(at_once)

    def write(number: int) -> None:
        together.wait(timeout=20)
        with database.transaction() as transaction:
            transaction.connection.execute(moment.insert(), {"name": str(number)})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert database._writer.pool.checkedout() <= 2
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(moment)).scalar_one() == at_once


def test_a_connection_that_was_lost_between_transactions_is_replaced(
    empty_postgresql_url: str,
) -> None:
    database = Database(empty_postgresql_url)
    with database.transaction() as transaction:
        own = transaction.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    other = Database(empty_postgresql_url)
    with other.transaction() as transaction:
        transaction.connection.execute(text("SELECT pg_terminate_backend(:own)"), {"own": own})

    with pytest.raises(DatabaseUnavailable), database.transaction() as transaction:
        transaction.connection.execute(text("SELECT 1"))
    with database.transaction() as transaction:
        again = transaction.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()

    assert again != own
    database.close()
    other.close()


def test_one_that_takes_no_writes_is_unavailable_to_whoever_writes(database: Database) -> None:
    read_only = {
        "sqlite": "PRAGMA query_only = ON",
        "postgresql": "SET TRANSACTION READ ONLY",
    }[database.dialect]

    with pytest.raises(DatabaseUnavailable), database.transaction() as transaction:  # noqa: PT012
        transaction.connection.exec_driver_sql(read_only)
        transaction.connection.execute(moment.insert(), {"name": "a"})


def test_a_missing_privilege_is_no_fault_of_what_is_written(empty_postgresql_url: str) -> None:
    database = Database(empty_postgresql_url)
    with database.transaction() as transaction:
        moment.create(transaction.connection)

    with pytest.raises(DatabaseUnavailable), database.transaction() as transaction:  # noqa: PT012
        transaction.connection.execute(text("SET LOCAL ROLE pg_monitor"))
        transaction.connection.execute(moment.insert(), {"name": "a"})

    database.close()


def test_where_the_lock_of_writers_cannot_be_had_nothing_is_written(
    empty_sqlite_url: str, tmp_path: Path
) -> None:
    database = Database(empty_sqlite_url, writer_lock_path=tmp_path)

    with pytest.raises(DatabaseUnavailable), database.transaction():
        pass

    database.close()
