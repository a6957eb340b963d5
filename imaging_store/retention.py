"""What may be let go of: received instances whose case has ended long enough ago.

A case has ended when nobody is to act on it any more and nothing of it waits to be delivered.
Results, reports and history are not asked about here: they stay.
"""

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    case,
    exists,
    func,
    or_,
    select,
)

from imaging_store.schema.ingest import (
    committed_instance,
    conflict,
    duplicate_instance,
    instance,
    open_association,
    study,
)
from imaging_store.schema.workflow import cases, destination_delivery
from message_contracts.case import CaseStatus, DeliveryState
from service_runtime.settings import RetentionSettings

_MEBIBYTE = 1024 * 1024
_WATERMARK_OF_RESERVE = 4
_COMPARED_BY_THEN = timedelta(hours=1)
"""Comparing takes a moment; what is not compared by then, nobody will: we made it ourselves."""
_FILE = ("sop_instance_uid", "digest", "key", "size_bytes")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long instances are kept, and from when on they are let go before their time."""

    period: timedelta | None
    """From the end of a case to its purge; ``None``: instances are kept for ever."""
    watermark_bytes: int
    """Less free than this: ended cases are purged before their time."""
    reserve_bytes: int
    """Less free than this: nothing is received."""
    commitment: timedelta | None = None
    """How long what we commit to is kept at least; ``None``: we commit to nothing."""

    @property
    def days(self) -> float | None:
        """The period as settings tell it."""
        return None if self.period is None else self.period / timedelta(days=1)

    @classmethod
    def of(cls, settings: RetentionSettings) -> Self:
        """Return what the settings say."""
        reserve_bytes = settings.store_reserve_mib * _MEBIBYTE
        watermark_mib = settings.store_watermark_mib
        return cls(
            period=timedelta(days=settings.retention_days) if settings.retention_days else None,
            watermark_bytes=reserve_bytes * _WATERMARK_OF_RESERVE
            if watermark_mib is None
            else watermark_mib * _MEBIBYTE,
            reserve_bytes=reserve_bytes,
            commitment=None
            if settings.commitment_days is None
            else timedelta(days=settings.commitment_days),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """What there is on the file system on which instances are kept."""

    free_bytes: int
    """For whoever is not root."""
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Moment:
    """As of when it is asked what may be purged."""

    now: datetime
    ended_by: datetime
    """Cases that ended later are left alone, and so are instances that came later."""
    is_early: bool = False
    """Room is short: only what a person has ended is purged."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A study whose case has ended, and of which something may be purged."""

    study_instance_uid: str
    ended_at: datetime


def room_of(folder: Path) -> Room:
    """Ask the file system of a store."""
    found = os.statvfs(folder)
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def due(retention: Retention, now: datetime) -> Moment | None:
    """Return the moment by which instances have been kept long enough; ``None``: never."""
    return None if retention.period is None else Moment(now, now - retention.period)


def early(retention: Retention, free_bytes: int, now: datetime) -> Moment | None:
    """Return the moment to purge by where room is short; ``None`` where it is not."""
    if retention.period is None or free_bytes >= retention.watermark_bytes:
        return None
    return Moment(now, now, is_early=True)


def ended_studies(
    connection: Connection, moment: Moment, limit: int, study_instance_uid: str | None = None
) -> list[Ended]:
    """Return studies of which something may be purged, the longest ended first; of one or all."""
    statement = (
        select(study.c.study_instance_uid, ENDED_AT.label("ended_at"))
        .join(cases, cases.c.study_instance_uid == study.c.study_instance_uid)
        .where(
            has_ended(moment),
            or_(
                # Without the offset PostgreSQL would rather read every instance there is.
                exists(instances_to_purge(moment, study.c.study_instance_uid).offset(0)),
                exists(duplicates_to_purge(moment, study.c.study_instance_uid).offset(0)),
            ),
        )
        .order_by(ENDED_AT, study.c.study_instance_uid)
        .limit(limit)
    )
    if study_instance_uid is not None:
        statement = statement.where(study.c.study_instance_uid == study_instance_uid)
    return [Ended(row.study_instance_uid, row.ended_at) for row in connection.execute(statement)]


def instances_to_purge(moment: Moment, of_study: Any) -> Select[Any]:
    """Select what may go of a study whose case has ended."""
    return select(*(instance.c[name] for name in _FILE)).where(
        instance.c.study_instance_uid == of_study, may_go(instance, moment)
    )


def duplicates_to_purge(moment: Moment, of_study: Any) -> Select[Any]:
    """Select what may go beside them; a duplicate shares the fate of the first's study."""
    columns = duplicate_instance.c
    first = instance.alias("first")
    return select(*(columns[name] for name in _FILE)).where(
        columns.sop_instance_uid == first.c.sop_instance_uid,
        first.c.study_instance_uid == of_study,
        may_go(duplicate_instance, moment),
    )


def has_ended(moment: Moment) -> ColumnElement[bool]:
    """Tell of a study, joined to its case, whether it has ended and nothing about it is open."""
    # Hidden from the index of cases: most that have ended are of studies purged long ago.
    status = func.coalesce(cases.c.status, "")
    ended = [
        status == CaseStatus.REJECTED,
        and_(status == CaseStatus.REPORT_READY, ~exists(_NOT_DELIVERED)),
    ]
    if not moment.is_early:
        # No model reads it and no doctor has opened it: nobody has ended it, and it still goes.
        ended.append(status == CaseStatus.NO_MODEL)
    return and_(
        study.c.purged_at.is_(None),
        study.c.pending_since.is_(None),
        # What was announced and not yet taken up may open the case again.
        cases.c.version >= study.c.version,
        ~cases.c.on_hold,
        or_(*ended),
        cases.c.changed_at <= moment.ended_by,
        moment.ended_by >= ENDED_AT,
        ~exists(_OPEN_CONFLICT),
        ~exists(_OPEN_ASSOCIATION),
        study.c.study_instance_uid.not_in(_being_compared(moment)),
    )


def _being_compared(moment: Moment) -> Select[Any]:
    """Select studies of which an instance has just come again: soon there may be a conflict."""
    columns = duplicate_instance.c
    return (
        select(instance.c.study_instance_uid)
        .join(duplicate_instance, columns.sop_instance_uid == instance.c.sop_instance_uid)
        .where(columns.difference.is_(None), columns.received_at > moment.now - _COMPARED_BY_THEN)
    )


def may_go(table: Table, moment: Moment) -> ColumnElement[bool]:
    """Tell of an instance or a duplicate whether it may go when its case has ended."""
    committed = select(committed_instance.c.sop_instance_uid).where(
        committed_instance.c.sop_instance_uid == table.c.sop_instance_uid,
        committed_instance.c.kept_until > moment.now,
    )
    return and_(
        table.c.purged_at.is_(None),
        table.c.received_at <= moment.ended_by,
        ~exists(committed),
    )


_NOT_DELIVERED = select(destination_delivery.c.destination).where(
    destination_delivery.c.case_id == cases.c.id,
    destination_delivery.c.case_version == cases.c.report_version,
    destination_delivery.c.state.not_in([DeliveryState.DELIVERED, DeliveryState.REJECTED]),
)
_OPEN_CONFLICT = select(conflict.c.id).where(
    conflict.c.study_instance_uid == study.c.study_instance_uid,
    conflict.c.settled_at.is_(None),
)
_OPEN_ASSOCIATION = select(open_association.c.id).where(
    open_association.c.study_instance_uid == study.c.study_instance_uid
)
_LAST_ANSWER = (
    select(func.max(destination_delivery.c.changed_at))
    .where(destination_delivery.c.case_id == cases.c.id)
    .scalar_subquery()
)
ENDED_AT = case((cases.c.changed_at < _LAST_ANSWER, _LAST_ANSWER), else_=cases.c.changed_at)
"""When a case that has ended did so: with its last act or the last answer of a destination."""
