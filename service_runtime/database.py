"""The database: short write transactions, reads beside them, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Engine,
    Insert,
    MetaData,
    Table,
    TypeDecorator,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from typing_extensions import override

from service_runtime.change_watch import ChangeWatch
from service_runtime.errors import TransientError
from service_runtime.kept_connections import KeptConnections

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of the product; each is written by one package's code."""

_LOCK_WAIT_S = 30
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    f"PRAGMA busy_timeout = {_LOCK_WAIT_S * 1000}",
    f"PRAGMA journal_size_limit = {64 * 1024 * 1024}",
    "PRAGMA foreign_keys = ON",
)
_PASSING_SQLITE_ERRORS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_PRIMARY_CODE = 0xFF
_POSTGRESQL_DISK_FULL = "53100"
_POSTGRESQL_DEADLOCK = "40P01"
_TAKES_NO_WRITES = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, "25006", "42501"})
"""It is read-only, as a standby is; a privilege is missing."""


class DatabaseUnavailable(TransientError):
    """The database cannot be reached, is locked, takes no writes at all, or has no room."""


class DatabaseFull(DatabaseUnavailable):
    """The database has no room."""


class Deadlock(DatabaseUnavailable):
    """A transaction was given up so that another one could go on; nothing was written."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware and in UTC on the way out, whichever zone it came in with."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            reason = "a moment needs a time zone"
            raise ValueError(reason)
        # SQLite's type writes it without the offset; such text sorts as the moments do.
        return value.astimezone(UTC)

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Transaction:
    """One write transaction. It holds the writer lock of SQLite: no computing and no I/O in it."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self.database = database
        self.connection = connection
        self._after_commit: dict[Callable[[], None], None] = {}

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call ``action`` once the transaction is durable; asked for twice, it is called once."""
        self._after_commit[action] = None

    def committed(self) -> None:
        """Run what was to be run after the commit."""
        for action in self._after_commit:
            action()


class Database:
    """The database of one process. Make it after forking: connections do not survive a fork.

    Parameters
    ----------
    url
        ``sqlite:///FILE`` or ``postgresql+psycopg2://…``.
    writer_lock_path
        The file by whose lock writers of SQLite queue; beside the database by default.
    via_relay
        Messages leave by a relay to a broker instead of waiting here for their consumers.

    Raises
    ------
    ValueError
        Neither SQLite nor PostgreSQL, or SQLite together with a broker.
    """

    def __init__(
        self, url: str, *, writer_lock_path: Path | None = None, via_relay: bool = False
    ) -> None:
        self.via_relay = via_relay
        self._wakers: list[Callable[[], None]] = []
        self._own = threading.local()
        self.dialect: Literal["sqlite", "postgresql"]
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            if via_relay:
                raise ValueError(
                    "SQLite cannot be shared by services on several machines, which is what a "
                    "broker is for: use PostgreSQL with amqp(s)://, or the broker embedded:"
                )
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("SQLite needs a file: sqlite:///FILE")
            self.dialect = "sqlite"
            self.path: Path | None = Path(parsed.database)
            # Patients' data lie in it, and SQLite gives its files whatever mode the umask leaves.
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_path = writer_lock_path or self.path.with_name("writer.lock")
            self._writer = self._sqlite_engine(url)
            self._reader = self._sqlite_engine(url)
            event.listen(self._writer, "begin", _begin_immediate)
            event.listen(self._reader, "connect", _read_only)
        elif backend == "postgresql":
            self.dialect = "postgresql"
            self.path = None
            self._writer = create_engine(
                parsed.set(drivername="postgresql+psycopg2"),
                hide_parameters=True,
                pool_size=8,
                max_overflow=24,
                pool_timeout=_LOCK_WAIT_S,
                connect_args={"connect_timeout": 10, "keepalives_idle": 30},
            )
            self._reader = self._writer.execution_options(isolation_level="AUTOCOMMIT")
        else:
            raise ValueError("neither sqlite:///FILE nor postgresql://…")
        self._kept_to_write = KeptConnections(self._writer)
        self._kept_to_read = KeptConnections(self._reader)

    def _sqlite_engine(self, url: str) -> Engine:
        engine = create_engine(
            url,
            # An error must not quote the values, which may be a patient's.
            hide_parameters=True,
            pool_size=8,
            max_overflow=24,
            connect_args={
                "timeout": _LOCK_WAIT_S,
                # The driver would begin deferred transactions, which fail at once where two meet.
                "isolation_level": None,
                "check_same_thread": False,
            },
        )
        event.listen(engine, "connect", _apply_pragmas)
        return engine

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[Transaction]:
        """Begin a write transaction; it commits at the end, or rolls back on any exception.

        Parameters
        ----------
        durable
            Whether the commit waits for the disk. Only where a power cut may undo it without
            harm may PostgreSQL be told not to; SQLite always waits.

        Raises
        ------
        DatabaseUnavailable
            Not reachable, locked for too long, a deadlock, read-only, or out of room: nothing was
            written, unless the connection was lost during the commit itself.
        RuntimeError
            This thread is in a transaction already.
        """
        if getattr(self._own, "writing", False):
            reason = "this thread is in a transaction already; pass that one on"
            raise RuntimeError(reason)
        self._own.writing = True
        try:
            with (
                _our_errors(to_write=True),
                # Had before the queue and kept after it, where nobody waits for it.
                self._kept_to_write.lend() as connection,
                self._queue_of_writers(),
                connection.begin(),
            ):
                if not durable and self.dialect == "postgresql":
                    connection.exec_driver_sql("SET LOCAL synchronous_commit TO OFF")
                transaction = Transaction(self, connection)
                yield transaction
        finally:
            self._own.writing = False
        transaction.committed()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection for reading; each statement sees what is committed by then.

        Raises
        ------
        DatabaseUnavailable
            Not reachable.
        """
        with _our_errors():
            if self.dialect != "sqlite":
                # The pool is told when the server was away, and gives none that it has lost.
                with self._reader.connect() as connection:
                    yield connection
                return
            with self._kept_to_read.lend() as connection:
                yield connection

    def insert_new(self, table: Table) -> Insert:
        """Return an insert that passes over a row that is there already."""
        return _insert_new(table, self.dialect)

    @contextmanager
    def _queue_of_writers(self) -> Iterator[None]:
        if self.dialect != "sqlite":
            yield
            return
        # Opened each time, because a lock belongs to the open file: threads and forked
        # processes that shared one would share the lock. The kernel queues; SQLite would sleep.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self._lock_path, flags, 0o640)
        except OSError as error:
            # The file system is read-only, or too many files are open: no fault of what is written.
            raise DatabaseUnavailable("database: the lock of its writers cannot be had") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def watch(self) -> ChangeWatch:
        """Return what tells whether anybody has committed anything."""
        return ChangeWatch(self.path)

    def on_send(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called whenever this process has committed something to deliver."""
        self._wakers = [*self._wakers, wake]

    def wake(self) -> None:
        """Tell the consumers or the relay of this process that there is something to deliver."""
        for waker in self._wakers:
            waker()

    def forget_waker(self, wake: Callable[[], None]) -> None:
        """Undo ``on_send``."""
        self._wakers = [waker for waker in self._wakers if waker != wake]

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._kept_to_write.close()
        self._kept_to_read.close()
        self._writer.dispose()
        self._reader.dispose()


@cache
def _insert_new(table: Table, dialect: str) -> Insert:
    # Kept: to make one costs as much as to run it, and SQLite's writer lock is held meanwhile.
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


@contextmanager
def _our_errors(*, to_write: bool = False) -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable("database: no connection came free") from error
    except sqlite3.OperationalError as error:
        if _is_of_no_room(error):
            raise DatabaseFull("database: no room") from error
        if _passes(error) or (to_write and _takes_no_writes(error)):
            raise DatabaseUnavailable("database: OperationalError") from error
        raise
    except (OperationalError, InterfaceError, DBAPIError) as error:
        if _is_of_no_room(error.orig):
            raise DatabaseFull("database: no room") from error
        if getattr(error.orig, "pgcode", None) == _POSTGRESQL_DEADLOCK:
            raise Deadlock("database: deadlock") from error
        if _may_pass(error) or (to_write and _takes_no_writes(error.orig)):
            reason = f"database: {type(error.orig).__name__}"
            raise DatabaseUnavailable(reason) from error
        raise


def _is_of_no_room(error: BaseException | None) -> bool:
    return (
        getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(error, "pgcode", None) == _POSTGRESQL_DISK_FULL
    )


def _may_pass(error: DBAPIError) -> bool:
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return _passes(original)
    return error.connection_invalidated or isinstance(error, OperationalError)


def _passes(error: sqlite3.Error) -> bool:
    return _sqlite_code(error) in _PASSING_SQLITE_ERRORS


def _takes_no_writes(error: BaseException | None) -> bool:
    """Return whether whatever is written is refused; who was to read only is refused as well."""
    return not _TAKES_NO_WRITES.isdisjoint({_sqlite_code(error), getattr(error, "pgcode", None)})


def _sqlite_code(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY_CODE


def _apply_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _read_only(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only = ON").close()


def _begin_immediate(connection: Connection) -> None:
    # Straight to the driver: the writer lock is held, and this is half the cost.
    driver: Any = connection.connection.dbapi_connection
    driver.execute("BEGIN IMMEDIATE").close()
