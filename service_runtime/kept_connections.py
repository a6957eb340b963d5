"""Connections that are lent for a moment and kept for whoever is next."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

MOST_KEPT = 2
"""Few: what is kept for one purpose is not there for another."""


class KeptConnections:
    """Lends connections of an engine; safe to use from many threads.

    Fetching one from the engine's pool and giving it back costs more than a short statement does.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: list[Connection] = []

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """Give a connection that is not in a transaction, and end whatever it is in afterwards.

        After an exception it goes back to the pool, which knows whether it can be used again.
        """
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = self._engine.connect()
        try:
            yield connection
            connection.rollback()
        except BaseException:
            connection.close()
            raise
        if len(self._kept) < MOST_KEPT:
            self._kept.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Give those back that are not in use."""
        while self._kept:
            self._kept.pop().close()
