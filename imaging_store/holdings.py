"""What is kept, what was let go of and what may be: the figures that people ask for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, case, func, select

from imaging_store.retention import ENDED_AT, Moment, Retention, due, has_ended, may_go
from imaging_store.schema.ingest import committed_instance, duplicate_instance, instance, study
from imaging_store.schema.workflow import cases


@dataclass(frozen=True, slots=True)
class Amount:
    """So many instances, and the bytes of their data sets."""

    instances: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """The figures of an installation."""

    kept: Amount
    purged: Amount
    oldest_received_at: datetime | None
    committed_instances: int
    """That may not be purged yet, because somebody was promised that they are kept."""
    purgeable: Amount
    """Now, because they were kept long enough."""
    next_due_at: datetime | None
    """When the first of the others will have been, unless something happens to its case."""


def holdings(connection: Connection, retention: Retention, now: datetime) -> Holdings:
    """Count what is kept; every row of the index is read."""
    moment = due(retention, now)
    committed = select(func.count(committed_instance.c.sop_instance_uid.distinct())).where(
        committed_instance.c.kept_until > now
    )
    oldest = select(func.min(instance.c.received_at)).where(instance.c.purged_at.is_(None))
    return Holdings(
        kept=_counted(connection, is_purged=False),
        purged=_counted(connection, is_purged=True),
        oldest_received_at=connection.execute(oldest).scalar(),
        committed_instances=connection.execute(committed).scalar_one(),
        purgeable=Amount(0, 0) if moment is None else purgeable(connection, moment),
        next_due_at=_next_due_at(connection, retention, now),
    )


def purgeable(connection: Connection, moment: Moment) -> Amount:
    """Count all that may be purged."""
    instances = _of_ended(instance, moment).where(may_go(instance, moment))
    duplicates = (
        _of_ended(duplicate_instance, moment)
        .join(
            duplicate_instance,
            duplicate_instance.c.sop_instance_uid == instance.c.sop_instance_uid,
        )
        .where(may_go(duplicate_instance, moment))
    )
    return _sum(connection, instances, duplicates)


def _next_due_at(connection: Connection, retention: Retention, now: datetime) -> datetime | None:
    long_enough = due(retention, now)
    if long_enough is None or retention.period is None:
        return None
    ended = Moment(now, now)
    kept_since = case((instance.c.received_at > ENDED_AT, instance.c.received_at), else_=ENDED_AT)
    first = connection.execute(
        _of_ended(instance, ended)
        .with_only_columns(func.min(kept_since))
        .where(may_go(instance, ended), kept_since > long_enough.ended_by)
    ).scalar()
    return None if first is None else first + retention.period


def _counted(connection: Connection, *, is_purged: bool) -> Amount:
    return _sum(
        connection,
        *(
            select(func.count(), func.sum(table.c.size_bytes)).where(
                table.c.purged_at.is_not(None) if is_purged else table.c.purged_at.is_(None)
            )
            for table in (instance, duplicate_instance)
        ),
    )


def _of_ended(counted: Any, moment: Moment) -> Select[Any]:
    return (
        select(func.count(), func.sum(counted.c.size_bytes))
        .select_from(study)
        .join(cases, cases.c.study_instance_uid == study.c.study_instance_uid)
        .join(instance, instance.c.study_instance_uid == study.c.study_instance_uid)
        .where(has_ended(moment))
    )


def _sum(connection: Connection, *statements: Select[Any, Any]) -> Amount:
    rows = [connection.execute(statement).one() for statement in statements]
    return Amount(sum(row[0] for row in rows), sum(int(row[1] or 0) for row in rows))
