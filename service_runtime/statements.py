"""Statements that are compiled once and run by the driver itself.

For the few that every received instance needs: SQLAlchemy spends on running a short statement six
times what the database does. They are written in the same SQLAlchemy Core, with the same types;
everything that runs less often goes through the transaction's connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar, cast

from sqlalchemy import (
    BindParameter,
    CompoundSelect,
    Delete,
    Dialect,
    Insert,
    Select,
    Update,
    bindparam,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg2
from sqlalchemy.exc import DBAPIError

from service_runtime.database import Transaction

T = TypeVar("T")
Keys = Sequence[BindParameter[Any]]

_DIALECTS: dict[str, tuple[Callable[..., Dialect], str]] = {
    "sqlite": (sqlite.dialect, "qmark"),
    "postgresql": (psycopg2.dialect, "format"),
}


class Lookup:
    """A SELECT of what has one of several keys.

    ``select`` makes it of the parameters that stand for the keys. It is compiled for 1, 2, 4, 8...
    of them; the last key is repeated to fill up.
    """

    def __init__(self, select: Callable[[Keys], Select[Any] | CompoundSelect[Any]]) -> None:
        self._select = select
        self._compiled: dict[tuple[str, int], _Compiled] = {}

    def rows(self, transaction: Transaction, keys: Sequence[object]) -> list[tuple[Any, ...]]:
        """Return the rows of ``keys``, of which there is at least one."""
        size = 1 << (len(keys) - 1).bit_length()
        which = (transaction.database.dialect, size)
        names = _key_names(size)
        compiled = self._compiled.get(which)
        if compiled is None:
            clause = self._select([bindparam(name) for name in names])
            compiled = self._compiled[which] = _compile(transaction, clause, ())
        filled = [*keys, *[keys[-1]] * (size - len(keys))]
        return compiled.rows(transaction, dict(zip(names, filled, strict=True)))


class Change:
    """An INSERT, UPDATE or DELETE, of many rows in one round trip."""

    def __init__(self, clause: Insert | Update | Delete) -> None:
        self._clause = clause
        self._compiled: dict[tuple[str, ...], _Compiled] = {}

    def run(self, transaction: Transaction, rows: Sequence[Mapping[str, object]]) -> None:
        """Run for each of ``rows``, which have the same names; for none, do nothing."""
        if not rows:
            return
        which = (transaction.database.dialect, *rows[0])
        compiled = self._compiled.get(which)
        if compiled is None:
            compiled = self._compiled[which] = _compile(transaction, self._clause, rows[0])
        compiled.change(transaction, rows)


@dataclass(frozen=True, slots=True)
class _Compiled:
    sql: str
    is_insert: bool
    in_order: Callable[[Mapping[str, object]], tuple[Any, ...]]
    """Gives the values of its parameters."""
    constants: dict[str, object]
    """Of parameters that the statement itself gives a value, where a row does not."""
    encoders: Sequence[tuple[int, Callable[[Any], object]]]
    decoders: Sequence[tuple[int, Callable[[Any], object]]]

    def rows(self, transaction: Transaction, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        encoded = [value for (value,) in self._columns([values])]
        cursor = _cursor(transaction)
        try:
            cursor.execute(self.sql, encoded)
            found = cursor.fetchall()
        except Exception as error:
            raise _as_sqlalchemys(transaction, error, cursor) from error
        finally:
            cursor.close()
        return [self._decoded(row) for row in found] if self.decoders else found

    def change(self, transaction: Transaction, rows: Sequence[Mapping[str, object]]) -> None:
        columns = self._columns(rows)
        cursor = _cursor(transaction)
        try:
            if transaction.database.dialect == "sqlite":
                cursor.executemany(self.sql, zip(*columns, strict=True))
            elif self.is_insert:
                cursor.execute(self._of_all(cursor, columns))
            else:
                # The embedded form is installed without PostgreSQL's driver.
                from psycopg2.extras import execute_batch  # noqa: PLC0415

                execute_batch(cursor, self.sql, [*zip(*columns, strict=True)], len(rows))
        except Exception as error:
            raise _as_sqlalchemys(transaction, error, cursor) from error
        finally:
            cursor.close()

    def _of_all(self, cursor: Any, columns: Sequence[Sequence[object]]) -> bytes:
        """Return one INSERT of all rows, which is planned once.

        The driver's own (``execute_values``) writes anew in every row what rows share, which is
        most of an instance.
        """
        head, values, _ = self.sql.rpartition(" VALUES ")
        written = [_each_once(lambda each: cursor.mogrify("%s", (each,)), one) for one in columns]
        rows = [b"(%b)" % b",".join(row) for row in zip(*written, strict=True)]
        return f"{head}{values}".encode() + b",".join(rows)

    def _columns(self, rows: Sequence[Mapping[str, object]]) -> list[Sequence[Any]]:
        """Return the values of rows as the driver takes them, parameter by parameter."""
        if self.constants:
            rows = [{**self.constants, **row} for row in rows]
        columns: list[Sequence[Any]] = [*zip(*map(self.in_order, rows), strict=True)]
        for place, encode in self.encoders:
            columns[place] = _each_once(encode, columns[place])
        return columns

    def _decoded(self, row: Sequence[Any]) -> tuple[Any, ...]:
        decoded = list(row)
        for place, decode in self.decoders:
            decoded[place] = decode(decoded[place])
        return tuple(decoded)


def _each_once(encode: Callable[[Any], T], values: Sequence[object]) -> list[T]:
    """Encode values; what rows share is encoded once."""
    # Not by what they are equal to: 1 is equal to True, and a list has no hash.
    ids = [*map(id, values)]
    encoded = {each: encode(value) for each, value in dict(zip(ids, values, strict=True)).items()}
    return [*map(encoded.__getitem__, ids)]


@cache
def _key_names(count: int) -> Sequence[str]:
    return [f"key{number}" for number in range(count)]


def _values_of(names: Sequence[str]) -> Callable[[Mapping[str, object]], tuple[Any, ...]]:
    """Return what gives the values of names, in their order."""
    if len(names) < 2:  # noqa: PLR2004
        # An itemgetter of one name would give the value alone, and there is none of no name.
        return lambda row: tuple(row[name] for name in names)
    return itemgetter(*names)


def _compile(
    transaction: Transaction,
    clause: Insert | Update | Delete | Select[Any] | CompoundSelect[Any],
    names: Sequence[str] | Mapping[str, object],
) -> _Compiled:
    # Both with places for values instead of names, which the drivers would look up for every row.
    made, style = _DIALECTS[transaction.database.dialect]
    dialect = made(paramstyle=style)
    keys = list(names) if isinstance(clause, Insert) else None
    compiled = clause.compile(dialect=dialect, column_keys=keys)
    if isinstance(clause, Insert | Update) and (
        compiled.insert_prefetch or compiled.update_prefetch
    ):
        raise TypeError("a column with a default of Python's has to be in the rows")
    types = {name: parameter.type for parameter, name in compiled.bind_names.items()}
    columns = [] if isinstance(clause, Insert | Update | Delete) else list(clause.selected_columns)
    return _Compiled(
        str(compiled),
        isinstance(clause, Insert),
        _values_of(names_in_order := compiled.positiontup or []),
        {
            name: parameter.effective_value
            for parameter, name in compiled.bind_names.items()
            if not parameter.required
        },
        [
            (place, encode)
            for place, name in enumerate(names_in_order)
            if (encode := types[name].dialect_impl(dialect).bind_processor(dialect))
        ],
        [
            (place, decode)
            for place, column in enumerate(columns)
            if (decode := column.type.dialect_impl(dialect).result_processor(dialect, None))
        ],
    )


def _cursor(transaction: Transaction) -> Any:
    return transaction.connection.connection.cursor()


def _as_sqlalchemys(transaction: Transaction, error: Exception, cursor: Any) -> BaseException:
    """Return a driver's error as SQLAlchemy would have raised it."""
    connection = transaction.connection
    dialect = connection.dialect
    driver: Any = dialect.loaded_dbapi
    if not isinstance(error, driver.Error):
        return error
    is_lost = dialect.is_disconnect(error, connection.connection.driver_connection, cursor)
    if is_lost:
        connection.invalidate(error)
    return cast(
        "BaseException",
        DBAPIError.instance(
            None, None, error, driver.Error, hide_parameters=True, connection_invalidated=is_lost
        ),
    )
