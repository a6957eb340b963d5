"""Says which studies are complete, each version once, whoever else says so at the same time.

All that is waited for is in the database: a killed process forgets nothing, and an announcement
made twice has the same id twice.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import BindParameter, Connection, bindparam, exists, func, or_, select, update

from dicom_listener import early_conflicts, open_associations
from dicom_listener.announcements import study_complete
from dicom_listener.completion import Evidence, Limits, completed_by
from dicom_listener.listed_instances import ListedInstances
from dicom_listener.study_progress import Progress
from imaging_store.schema.ingest import instance, open_association, study
from message_contracts.ingest import CompletionReason
from service_runtime.database import Database, Transaction
from service_runtime.messaging import outbox

log = structlog.get_logger()

_BATCH = 20
"""As many are announced in one transaction; on SQLite receiving waits for it."""
_AT_ONCE = 500
"""As many are looked for at one time."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_WAIT = timedelta(minutes=1)


class Announcer:
    """Looks for versions that are complete, and announces them."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._listed = ListedInstances(database)
        self._next_deadline = _LONG_AGO

    def look(self, now: datetime) -> float:
        """Announce what is complete; return after how many seconds time alone may complete more."""
        early_conflicts.tell_of_arrived(self._database, now)
        found: dict[str, int | None] = {**self._listed.complete()}
        with self._database.reading() as connection:
            silent = now - self._limits.association_timeout
            quiet = connection.execute(_QUIET, {"now": now, "silent": silent}).scalars().all()
            late = self._late(connection, now)
            next_quiet = connection.execute(_NEXT_QUIET, {"now": now}).scalar()
            is_one_sent_to = connection.execute(_SENT_TO, {"now": now}).first() is not None
        for uid in (*quiet, *late):
            found.setdefault(uid, None)
        self._announce(found, now)
        if is_one_sent_to:
            open_associations.forget_dead(self._database, now)
        if _AT_ONCE in {len(quiet), len(late)}:
            return 0.0
        due = min(self._next_deadline, next_quiet or self._next_deadline)
        return max(0.0, (due - now).total_seconds())

    def _late(self, connection: Connection, now: datetime) -> Sequence[str]:
        """Return studies that are past their deadline; looks only when one may be."""
        if now < self._next_deadline:
            return []
        deadline = self._limits.deadline
        late = connection.execute(_LATE, {"since": now - deadline}).scalars().all()
        if len(late) < _AT_ONCE:
            earliest = connection.execute(_EARLIEST, {"since": now - deadline}).scalar() or now
            # What arrives from now on has all of its time before it. Clocks jump: look again soon.
            self._next_deadline = min(earliest + deadline, now + _LONGEST_WAIT)
        return late

    def _announce(self, found: Mapping[str, int | None], now: datetime) -> None:
        """Announce studies; with each the version after which its steps list all of the next."""
        uids = sorted(found)
        for start in range(0, len(uids), _BATCH):
            self._announce_batch({uid: found[uid] for uid in uids[start : start + _BATCH]}, now)

    def _announce_batch(self, found: Mapping[str, int | None], now: datetime) -> None:
        with self._database.transaction() as transaction:
            announced = [
                _announce(transaction, uid, progress, reason, now)
                for uid, progress, is_sent_to in _locked(transaction, found)
                if (
                    # Between looking and locking another instance may have come.
                    reason := completed_by(
                        progress,
                        Evidence(is_sent_to, has_all_listed=found[uid] == progress.version),
                        now,
                        self._limits,
                    )
                )
            ]
        for event in announced:
            log.info("study.complete", **event)


def force(transaction: Transaction, study_instance_uid: str, at: datetime) -> None:
    """Announce what has arrived of a study, because a person says that it is all; or nothing."""
    for uid, progress, _ in _locked(transaction, [study_instance_uid]):
        if progress.pending_since is not None:
            _announce(transaction, uid, progress, CompletionReason.FORCED, at)


def announce_settled(transaction: Transaction, study_instance_uid: str, at: datetime) -> int | None:
    """Have a study that a person's decision has changed make a version; return which one.

    It is announced here, unless one is pending: that one will have the change too. ``None`` where
    the first has not been announced, so that nobody has seen the study as it was.
    """
    for uid, progress, _ in _locked(transaction, [study_instance_uid]):
        if progress.version and progress.pending_since is None:
            _announce(transaction, uid, progress, CompletionReason.SETTLED, at)
        return progress.version + 1 if progress.version else None
    return None


def _locked(
    transaction: Transaction, study_instance_uids: Collection[str]
) -> Iterator[tuple[str, Progress, bool]]:
    """Give studies, locked, and whether an association is open that has sent to them last."""
    connection = transaction.connection
    uids = sorted(study_instance_uids)
    rows = connection.execute(
        select(
            study.c.study_instance_uid, study.c.version, study.c.pending_since, study.c.quiet_until
        )
        .where(study.c.study_instance_uid.in_(uids))
        .order_by(study.c.study_instance_uid)
        .with_for_update()
    ).all()
    # Read after the lock is held, so that it is as new as the rows are.
    column = open_association.c.study_instance_uid
    sent_to = set(connection.execute(select(column).where(column.in_(uids))).scalars())
    for uid, version, pending_since, quiet_until in rows:
        yield uid, Progress(version, pending_since, quiet_until), uid in sent_to


def _announce(
    transaction: Transaction,
    study_instance_uid: str,
    progress: Progress,
    reason: CompletionReason,
    at: datetime,
) -> dict[str, object]:
    """Announce the next version of a locked study; return what the log says of it."""
    version = progress.version + 1
    count = transaction.connection.execute(
        select(func.count())
        .select_from(instance)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.study_version <= version,
            instance.c.excluded_at.is_(None),
        )
    ).scalar_one()
    transaction.connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(version=version, pending_since=None, quiet_until=None)
    )
    outbox.send(transaction, study_complete(study_instance_uid, version, count, reason, at))
    return {
        "study_instance_uid": study_instance_uid,
        "study_version": version,
        "instance_count": count,
        "completion": reason,
    }


_NOW: BindParameter[datetime] = bindparam("now")
_SINCE: BindParameter[datetime] = bindparam("since")
_WAITS = study.c.quiet_until > _LONG_AGO
"""As a range, for which SQLite takes the index."""
_IS_SENT_TO = exists().where(open_association.c.study_instance_uid == study.c.study_instance_uid)
_QUIET = (
    select(study.c.study_instance_uid)
    .where(
        study.c.quiet_until <= _NOW,
        or_(study.c.quiet_until <= bindparam("silent"), ~_IS_SENT_TO),
    )
    .order_by(study.c.quiet_until)
    .limit(_AT_ONCE)
)
_NEXT_QUIET = select(func.min(study.c.quiet_until)).where(study.c.quiet_until > _NOW)
_SENT_TO = (
    select(study.c.study_instance_uid).where(study.c.quiet_until <= _NOW, _IS_SENT_TO).limit(1)
)
_LATE = (
    select(study.c.study_instance_uid)
    .where(_WAITS, study.c.pending_since <= _SINCE)
    .order_by(study.c.pending_since)
    .limit(_AT_ONCE)
)
_EARLIEST = select(func.min(study.c.pending_since)).where(_WAITS, study.c.pending_since > _SINCE)
