"""Sweeps up files that no row claims: their receiver was killed, and nobody sent them again."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import PurePosixPath

import structlog
from sqlalchemy import select, union_all

from dicom_listener.metrics import SWEPT
from imaging_store.instances import FileInstanceStore
from imaging_store.retention import Retention
from imaging_store.schema.ingest import (
    duplicate_instance,
    instance,
    quarantined_instance,
    removal,
)
from imaging_store.unclaimed import kept_before, move_aside, remove_aside
from service_runtime.database import Database

_ENTERED_BY_THEN = timedelta(days=1)
"""Between keeping a file and entering it lies a moment; with a database that is away, more."""
_AT_ONCE = 500
_DIGEST_OF_UID = "x"
"""With it a file name begins whose UID is malformed."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sweep:
    """Sweeps one installation's store; any number may do so at once."""

    database: Database
    store: FileInstanceStore
    retention: Retention
    now: Callable[[], datetime]

    def run(self, stopping: threading.Event) -> int:
        """Move aside what nobody claims, a day after it was kept; return how many files.

        What was moved aside is removed after the retention period.
        """
        now = self.now()
        old = kept_before(self.store.root, now - _ENTERED_BY_THEN)
        moved = 0
        while not stopping.is_set() and (keys := list(islice(old, _AT_ONCE))):
            claimed = self._claimed(keys)
            moved += sum(
                move_aside(self.store.root, key, now - _ENTERED_BY_THEN, self._is_claimed, now)
                for key in keys
                if key not in claimed
            )
        if moved:
            log.warning("files.unclaimed", count=moved)
            SWEPT.labels("moved aside").inc(moved)
        if self.retention.period is not None:
            removed = remove_aside(self.store.root, now - self.retention.period)
            SWEPT.labels("removed").inc(removed)
        return moved

    def _is_claimed(self, key: str) -> bool:
        return key in self._claimed([key])

    def _claimed(self, keys: Sequence[str]) -> set[str]:
        """Return which of these files a row claims, or have their removal under way.

        In one statement: a row that moves from one table to another is seen in one of them.
        """
        names = [PurePosixPath(key).name for key in keys]
        uids = [name.partition("-")[0] for name in names]
        digests = [name.partition(".")[0] for name in names]
        odd = [key for key, uid in zip(keys, uids, strict=True) if uid.startswith(_DIGEST_OF_UID)]
        tables = [
            select(table.c.key).where(
                # No index has the key: it is asked for where the UID cannot be.
                table.c.sop_instance_uid.in_(uids) | table.c.key.in_(odd)
                if odd
                else table.c.sop_instance_uid.in_(uids),
                table.c.purged_at.is_(None),
            )
            for table in (instance, duplicate_instance)
        ]
        in_quarantine = select(quarantined_instance.c.key).where(
            quarantined_instance.c.id.in_(digests), quarantined_instance.c.outcome.is_(None)
        )
        leaving = select(removal.c.key).where(removal.c.key.in_(keys))
        with self.database.reading() as connection:
            found = set(connection.execute(union_all(*tables, in_quarantine, leaving)).scalars())
        return found | set(_reasons(found))


def _reasons(keys: Iterable[str]) -> Iterable[str]:
    """Give the keys of the texts that lie beside what is in quarantine."""
    return (f"{key.removesuffix('.dcm')}.reason.txt" for key in keys)
