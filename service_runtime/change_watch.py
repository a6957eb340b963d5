"""Tells whether anybody has committed anything to the database."""

import sqlite3
from pathlib import Path


class ChangeWatch:
    """Tells whether any process has committed since it was asked last. For one thread's use.

    SQLite counts commits (``PRAGMA data_version``, 3 µs); of PostgreSQL the answer is always that
    it may be so, and ``interval_s`` is longer. ``path`` is the file of an SQLite database.
    """

    def __init__(self, path: Path | None) -> None:
        self.interval_s = 0.01 if path else 0.05
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None
        self.changed()

    def changed(self) -> bool:
        """Tell whether anything was committed, by anybody, since the last call."""
        if self._path is None:
            return True
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, check_same_thread=False)
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.OperationalError:
            return True
        before, self._version = self._version, version
        return bool(version != before)

    def close(self) -> None:
        """Close the connection that it watches by."""
        if self._connection is not None:
            self._connection.close()
