"""Lets go of received instances: first no row claims them any more, then their files go.

What is marked is durable before a file is touched, and names the file until it is gone: whoever is
killed in between leaves work that the next one finishes, and no row that claims what is not there.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, Select, bindparam, delete, func, or_, select, update
from typing_extensions import override

from dicom_listener.forgetting import forget_settled
from dicom_listener.metrics import PURGED, STORE_FREE_BYTES
from dicom_listener.recovered import NotRead, Recovered
from dicom_listener.sweeping import Sweep
from imaging_store.ballast import Ballast
from imaging_store.holdings import Amount
from imaging_store.instances import FileInstanceStore
from imaging_store.removal import putting_back, remove_marked, removing
from imaging_store.retention import (
    Moment,
    Retention,
    due,
    duplicates_to_purge,
    early,
    ended_studies,
    instances_to_purge,
    room_of,
)
from imaging_store.schema.ingest import duplicate_instance, instance, removal, study
from imaging_store.schema.workflow import cases
from service_runtime.background import Background
from service_runtime.database import Database, DatabaseUnavailable, Transaction, UtcDateTime
from service_runtime.errors import TransientError
from service_runtime.messaging.forgetting import forget

_STUDIES = 20
_INSTANCES = 500
_FILES = 500
_LOOK_AT_ROOM_S = 5.0
_LOOK_FOR_DUE = timedelta(minutes=1)
_FORGET = timedelta(hours=6)
_SWEEP = timedelta(days=1)
_TRY_AGAIN = timedelta(hours=1)
"""After it a file is tried that could not be removed or read, or was kept anew."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Purge:
    """Purges one installation, a bounded piece at a time; any number may do so at once."""

    database: Database
    store: FileInstanceStore
    retention: Retention
    now: Callable[[], datetime]

    def some(self) -> Amount:
        """Purge some of what has been kept long enough, the longest ended first."""
        return self._some(due(self.retention, self.now()), _STUDIES)

    def some_early(self) -> Amount:
        """Purge of one study before its time, where room is short.

        Not while many files of others cannot be removed: that would make no room.
        """
        moment = early(self.retention, room_of(self.store.root).free_bytes, self.now())
        if moment is None or self._are_many_left():
            return Amount(0, 0)
        return self._some(moment, 1)

    def _are_many_left(self) -> bool:
        """Whether many files are left that were given up lately."""
        lately = removal.c.since > self.now() - _TRY_AGAIN
        with self.database.reading() as connection:
            left = connection.execute(select(func.count(removal.c.key)).where(lately))
            return left.scalar_one() >= _FILES

    @property
    def ballast(self) -> Ballast:
        """What the database may need to write when there is no room at all."""
        return Ballast.of(self.store.root, self.retention.reserve_bytes)

    def _some(self, moment: Moment | None, limit: int) -> Amount:
        if moment is None:
            return Amount(0, 0)
        with self.database.reading() as connection:
            ended = ended_studies(connection, moment, limit)
        try:
            marked = [self._mark(each.study_instance_uid, moment) for each in ended]
        except DatabaseUnavailable:
            if not self.ballast.drop():
                raise
            log.warning("purging.ballast_dropped")
            marked = [self._mark(each.study_instance_uid, moment) for each in ended]
        self.remove_marked()
        return Amount(
            sum(each.instances for each in marked), sum(each.size_bytes for each in marked)
        )

    def _mark(self, study_instance_uid: str, moment: Moment) -> Amount:
        """Have no row claim what may go of a study; from then on its files may go too."""
        with self.database.transaction() as transaction:
            connection = transaction.connection
            # Whoever adds to a study, or commits to its instances, holds the same lock.
            connection.execute(_LOCK_STUDY.where(study.c.study_instance_uid == study_instance_uid))
            # Whoever acts on the case does so before, and nothing goes, or after.
            connection.execute(_LOCK_CASE.where(cases.c.study_instance_uid == study_instance_uid))
            if not ended_studies(connection, moment, 1, study_instance_uid):
                return Amount(0, 0)
            instances = _rows(connection, instances_to_purge(moment, study_instance_uid))
            duplicates = _rows(connection, duplicates_to_purge(moment, study_instance_uid))
            for table, rows in ((instance, instances), (duplicate_instance, duplicates)):
                uids = [row.sop_instance_uid for row in rows]
                digests = [row.digest for row in rows]
                connection.execute(
                    update(table)
                    .where(table.c.sop_instance_uid.in_(uids), table.c.digest.in_(digests))
                    .values(purged_at=moment.now)
                )
            gone = [*instances, *duplicates]
            discard(transaction, [row.key for row in gone], moment.now)
            if not _is_any_kept(connection, study_instance_uid):
                connection.execute(
                    update(study)
                    .where(study.c.study_instance_uid == study_instance_uid)
                    .values(purged_at=moment.now)
                )
        amount = Amount(len(gone), sum(row.size_bytes for row in gone))
        reason = "early" if moment.is_early else "due"
        PURGED.labels(reason).inc(amount.instances)
        log.info(
            "instances.purged",
            study_instance_uid=study_instance_uid,
            instance_count=amount.instances,
            size_bytes=amount.size_bytes,
            reason=reason,
        )
        return amount

    def forget(self) -> None:
        """Forget messages, and what is over, that nobody will ask about again."""
        now = self.now()
        forget(self.database, now)
        if self.retention.period is not None:
            forget_settled(self.database, now - self.retention.period, now)

    def remove_marked(self) -> int:
        """Remove the files that no row claims any more; return how many that were.

        What cannot be removed is tried again later, and stands before nothing. So is what was kept
        after it had been marked: its sender was answered before the index knew, and whoever enters
        it puts it back. A store that was restored from a backup looks the same, once.
        """
        removed = 0
        now = self.now()
        while True:
            with removing(self.store.root):
                with self.database.reading() as connection:
                    rows = connection.execute(_MARKED.limit(_FILES), {"now": now}).all()
                marked = {
                    row.key: row.due_at - _TRY_AGAIN if row.due_at else row.since for row in rows
                }
                failed, kept_anew = remove_marked(self.store.root, marked, now)
                left = [*failed, *kept_anew]
                if marked:
                    with self.database.transaction() as transaction:
                        connection = transaction.connection
                        gone = list(marked.keys() - left)
                        connection.execute(delete(removal).where(removal.c.key.in_(gone)))
                        connection.execute(
                            update(removal)
                            .where(removal.c.key.in_(left))
                            .values(due_at=now + _TRY_AGAIN)
                        )
            removed += len(marked) - len(left)
            for key, error in failed.items():
                log.error("instance.not_removed", key=key, exc_info=error)
            for key in kept_anew:
                log.warning("instance.kept_anew", key=key)
            if len(marked) < _FILES:
                return removed


def discard(transaction: Transaction, keys: list[str], at: datetime) -> None:
    """Have files removed that no row claims any more once this transaction is durable."""
    if keys:
        transaction.connection.execute(
            transaction.database.insert_new(removal), [{"key": key, "since": at} for key in keys]
        )


def put_back(
    database: Database,
    store: FileInstanceStore,
    key: str,
    same: tuple[str, str],
    at: datetime,
) -> bool:
    """Have a purged instance that came again count as kept; return whether its bytes are there.

    Its file lies under ``key`` already, unless the purge has just removed it; ``same`` is its SOP
    Instance UID and the digest of its data set.
    """
    sop_instance_uid, digest = same
    with putting_back(store.root):
        if not store.is_durable(key):
            return False
        with database.transaction() as transaction:
            connection = transaction.connection
            connection.execute(delete(removal).where(removal.c.key == key))
            for table in (instance, duplicate_instance):
                connection.execute(
                    update(table)
                    .where(
                        table.c.sop_instance_uid == sop_instance_uid,
                        table.c.digest == digest,
                        table.c.purged_at.is_not(None),
                    )
                    .values(purged_at=None, key=key, received_at=at)
                )
            of_study = select(instance.c.study_instance_uid).where(
                instance.c.sop_instance_uid == sop_instance_uid
            )
            connection.execute(
                update(study).where(study.c.study_instance_uid.in_(of_study)).values(purged_at=None)
            )
    return True


class Purging(Background):
    """A thread that purges what is due, and looks often whether room is short.

    It also has what nobody will ask about again forgotten, and sweeps the store.
    """

    def __init__(self, purge: Purge, recover: Callable[[Sequence[str]], Recovered]) -> None:
        super().__init__("purging")
        self._purge = purge
        self._sweep = Sweep(purge.database, purge.store, purge.retention, purge.now, recover)
        self._due_at = self._forget_at = self._sweep_at = purge.now()

    @override
    def work(self, stopping: threading.Event) -> None:
        is_left = True
        while True:
            try:
                if is_left:
                    self._purge.remove_marked()
                    is_left = False
                self._step(stopping)
            except Exception as error:
                # Also where the log cannot be written, on a full disk: it makes room.
                with suppress(OSError):
                    if isinstance(error, TransientError):
                        log.warning("purging.delayed", exc_info=error)
                    else:
                        log.exception("purging.failed")
            if stopping.wait(_LOOK_AT_ROOM_S):
                return

    def _step(self, stopping: threading.Event) -> None:
        free_bytes = room_of(self._purge.store.root).free_bytes
        STORE_FREE_BYTES.set(free_bytes)
        if free_bytes > self._purge.retention.reserve_bytes + self._purge.ballast.size_bytes:
            self._purge.ballast.hold()
        # File systems may give room back later: what has just gone counts at once.
        short_bytes = self._purge.retention.watermark_bytes - free_bytes
        while short_bytes > 0 and not stopping.is_set():
            gone = self._purge.some_early()
            if not gone.instances:
                break
            short_bytes -= gone.size_bytes
        if self._purge.now() >= self._due_at:
            while self._purge.some().instances and not stopping.is_set():
                pass
            self._due_at = self._purge.now() + _LOOK_FOR_DUE
        if self._purge.now() >= self._forget_at:
            self._purge.forget()
            self._forget_at = self._purge.now() + _FORGET
        if self._purge.now() >= self._sweep_at:
            try:
                self._sweep.run(stopping)
            except NotRead:
                self._sweep_at = self._purge.now() + _TRY_AGAIN
                raise
            self._sweep_at = self._purge.now() + _SWEEP


_LOCK_STUDY = select(study.c.study_instance_uid).with_for_update()
_LOCK_CASE = select(cases.c.id).with_for_update(read=True)
_MARKED = (
    select(removal)
    .where(or_(removal.c.due_at.is_(None), removal.c.due_at <= bindparam("now", type_=UtcDateTime)))
    .order_by(removal.c.since, removal.c.key)
)


def _rows(connection: Connection, statement: Select[Any]) -> list[Any]:
    return list(connection.execute(statement.limit(_INSTANCES)).all())


def _is_any_kept(connection: Connection, study_instance_uid: str) -> bool:
    of_study = instance.c.study_instance_uid == study_instance_uid
    instances = select(instance.c.sop_instance_uid).where(of_study, instance.c.purged_at.is_(None))
    duplicates = select(duplicate_instance.c.sop_instance_uid).where(
        duplicate_instance.c.sop_instance_uid == instance.c.sop_instance_uid,
        of_study,
        duplicate_instance.c.purged_at.is_(None),
    )
    return any(
        connection.execute(statement.limit(1)).first() is not None
        for statement in (instances, duplicates)
    )
