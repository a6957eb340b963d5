"""When a version of a study is complete, and saying so.

All that is waited for is in the database: a study with ``pending_since`` set has something that no
announcement has named yet. So a killed process forgets nothing, and an announcement made twice has
the same id twice.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import func, select, update

from dicom_listener import study_progress
from dicom_listener.announcements import study_complete
from dicom_listener.procedure_step import ProcedureStep, StepStatus
from imaging_store.schema.ingest import instance, study
from message_contracts.ingest import CompletionReason
from service_runtime.database import Database
from service_runtime.messaging import outbox

_BATCH = 50


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a study has come."""

    version: int
    """The last version announced; 0 while the first is arriving."""
    pending_since: datetime | None
    """When the newest instance came that makes the next version."""


NOT_BEGUN = Progress(version=0, pending_since=None)


def after_arrival(progress: Progress, *, makes_version: bool, at: datetime) -> Progress:
    """Return how a new instance leaves its study.

    While the first version is arriving every instance prolongs the wait. After it has been
    announced only what makes a version does: an image that we did not make.
    """
    if progress.version == 0 or makes_version:
        return replace(progress, pending_since=at)
    return progress


def version_of_arrival(progress: Progress, *, makes_version: bool) -> int:
    """Return the study version that a new instance belongs to."""
    if progress.version == 0 or makes_version:
        return progress.version + 1
    return progress.version


def is_quiet(progress: Progress, now: datetime, quiet_period: timedelta) -> bool:
    """Whether the next version of a study is complete."""
    return progress.pending_since is not None and progress.pending_since + quiet_period <= now


def wait_s(pending: Iterable[datetime], now: datetime, quiet_period: timedelta) -> float:
    """Return how long nothing can become complete.

    What arrives from now on is not complete before a whole quiet period has passed.
    """
    earliest = min(pending, default=now)
    return max(0.0, (earliest + quiet_period - now).total_seconds())


def announce_quiet(database: Database, now: datetime, quiet_period: timedelta) -> float:
    """Announce every study version that has become complete; return `wait_s` for the rest."""
    with database.reading() as connection:
        pending = connection.execute(
            select(study.c.study_instance_uid, study.c.pending_since)
            .where(study.c.pending_since.is_not(None))
            .order_by(study.c.pending_since)
            .limit(_BATCH)
        ).all()
    quiet = [row.study_instance_uid for row in pending if row.pending_since + quiet_period <= now]
    if quiet:
        _announce(database, quiet, now, quiet_period)
    if len(quiet) == _BATCH:
        return 0.0
    waiting = [row.pending_since for row in pending if row.study_instance_uid not in quiet]
    return wait_s(waiting, now, quiet_period)


def _announce(
    database: Database, study_instance_uids: list[str], now: datetime, quiet_period: timedelta
) -> None:
    with database.transaction() as transaction:
        rows = transaction.connection.execute(
            select(study.c.study_instance_uid, study.c.version, study.c.pending_since)
            .where(study.c.study_instance_uid.in_(study_instance_uids))
            .order_by(study.c.study_instance_uid)
            .with_for_update()
        ).all()
        for row in rows:
            # Between reading and locking another instance may have come.
            if not is_quiet(Progress(row.version, row.pending_since), now, quiet_period):
                continue
            version = row.version + 1
            instance_count = transaction.connection.execute(
                select(func.count())
                .select_from(instance)
                .where(
                    instance.c.study_instance_uid == row.study_instance_uid,
                    instance.c.study_version <= version,
                )
            ).scalar_one()
            transaction.connection.execute(
                update(study)
                .where(study.c.study_instance_uid == row.study_instance_uid)
                .values(version=version, pending_since=None)
            )
            outbox.send(
                transaction,
                study_complete(
                    row.study_instance_uid, version, instance_count, CompletionReason.QUIET, now
                ),
            )


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is waited at most."""

    association_timeout: timedelta
    """For an association that has sent to a study, and sends nothing more."""
    deadline: timedelta
    """For a version in all, from its first instance."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for and against going on to wait."""

    is_sent_to: bool = False
    """An association is open that has sent to this study last."""
    has_all_listed: bool = False
    """As `has_all_listed` tells of its procedure steps."""


def completed_by(
    progress: study_progress.Progress, evidence: Evidence, now: datetime, limits: Limits
) -> CompletionReason | None:
    """Return why the next version of a study is complete, or ``None`` while it is not."""
    if progress.pending_since is None or progress.quiet_until is None:
        return None
    if evidence.has_all_listed:
        return CompletionReason.MPPS
    if progress.quiet_until <= now and not _is_held_open(
        progress.quiet_until, evidence, now, limits
    ):
        return CompletionReason.QUIET
    if progress.pending_since + limits.deadline <= now:
        return CompletionReason.DEADLINE
    return None


def _is_held_open(quiet_until: datetime, evidence: Evidence, now: datetime, limits: Limits) -> bool:
    """Whether an association may go on sending; one that has died with its machine cannot."""
    return evidence.is_sent_to and now < quiet_until + limits.association_timeout


@dataclass(frozen=True, slots=True)
class Listing:
    """What the procedure steps of a study list, taken together."""

    awaited: tuple[str, ...]
    """SOP Instance UIDs that have to arrive: those of the COMPLETED steps."""
    accounted_for: frozenset[str]
    """Those of all steps: a discontinued one has listed what it made, and need not send it."""


def listing(steps: Iterable[ProcedureStep]) -> Listing | None:
    """Return what is listed, or ``None`` while that tells nothing.

    That is while a step is IN PROGRESS, and where no COMPLETED one lists an instance.
    """
    steps = tuple(steps)
    if any(step.status is StepStatus.IN_PROGRESS for step in steps):
        return None
    awaited = dict.fromkeys(
        uid
        for step in steps
        if step.status is StepStatus.COMPLETED
        for uid in step.sop_instance_uids
    )
    if not awaited:
        return None
    accounted_for = frozenset(uid for step in steps for uid in step.sop_instance_uids)
    return Listing(tuple(awaited), accounted_for)


def has_all_listed(
    listed: Listing, arrived: Collection[str], waiting_images: Collection[str]
) -> bool:
    """Whether procedure steps say that the next version is complete.

    Every instance that they await has arrived, and they account for every image that waits to be
    announced: where one is not listed, more of its kind may follow.
    """
    return all(uid in arrived for uid in listed.awaited) and listed.accounted_for.issuperset(
        waiting_images
    )
