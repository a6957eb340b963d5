"""Sweeps up files that no row claims: enters them, or moves aside what cannot be entered.

Their receiver was killed before it had them entered, or the index is older than the store: it was
restored from a backup.
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

import structlog

from dicom_listener.claims import claimed
from dicom_listener.metrics import SWEPT
from dicom_listener.recovered import NotRead, Recovered
from imaging_store.instances import FileInstanceStore
from imaging_store.retention import Retention
from imaging_store.unclaimed import kept_before, move_aside, move_damaged_aside, remove_aside
from service_runtime.database import Database

_ENTERED_BY_THEN = timedelta(days=1)
"""Between keeping a file and entering it lies a moment; with a database that is away, more."""
_AT_ONCE = 64
"""All of each may have to be read before it is seen whether to stop."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sweep:
    """Sweeps one installation's store; any number may do so at once."""

    database: Database
    store: FileInstanceStore
    retention: Retention
    now: Callable[[], datetime]
    recover: Callable[[Sequence[str]], Recovered]
    """Enters of these files those that no row claims."""

    def run(self, stopping: threading.Event) -> int:
        """Enter what nobody claims a day after it was kept, or move it aside; return how many were.

        What was moved aside is removed after the retention period.

        Raises
        ------
        NotRead
            All else is done. What could not be read stays where it is.
        TransientError
            Something is left that may yet be entered.
        """
        now = self.now()
        passed_over: list[OSError] = []
        old = kept_before(self.store.root, now - _ENTERED_BY_THEN, passed_over.append)
        moved = not_read = 0
        while not stopping.is_set() and (keys := list(islice(old, _AT_ONCE))):
            recovered = self.recover(keys)
            not_read += len(recovered.not_read)
            for key in (*recovered.unusable, *recovered.damaged):
                try:
                    moved += self._move_aside(key, recovered.damaged.get(key), now)
                except OSError as error:
                    # One that cannot be moved keeps no other.
                    log.warning("instance.not_recovered", key=key, exc_info=error)
                    not_read += 1
        if moved:
            log.warning("files.unclaimed", count=moved)
            SWEPT.labels("moved aside").inc(moved)
        if self.retention.period is not None:
            removed = remove_aside(self.store.root, now - self.retention.period)
            SWEPT.labels("removed").inc(removed)
        if not_read or passed_over:
            raise NotRead(f"store: {not_read + len(passed_over)} could not be read")
        return moved

    def _move_aside(self, key: str, damaged: os.stat_result | None, now: datetime) -> bool:
        root = self.store.root
        if damaged is None:
            return move_aside(root, key, now - _ENTERED_BY_THEN, self._is_claimed, now)
        is_moved = move_damaged_aside(root, key, damaged, self._is_claimed, self.now())
        if is_moved:
            log.warning("instance.damaged", key=key)
        return is_moved

    def _is_claimed(self, key: str) -> bool:
        return key in claimed(self.database, [key])
