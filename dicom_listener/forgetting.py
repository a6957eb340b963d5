"""Lets go of what is over and was kept as long as instances are: so that tables do not only grow.

That is commitments whose promise is over, procedure steps, doubts about studies that never came,
and what people have settled of the quarantine; their decisions stay in its history. What is owed,
or waits for somebody, stays.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, delete, exists, or_, select

from imaging_store.schema.ingest import (
    commitment,
    committed_instance,
    early_conflict,
    performed_procedure_step,
    quarantined_instance,
    step_of_study,
)
from service_runtime.database import Database

_AT_ONCE = 500


def forget_settled(database: Database, before: datetime, now: datetime) -> int:
    """Forget what was over ``before``; return how many rows that were.

    Raises
    ------
    DatabaseUnavailable
        Some may have been forgotten.
    """
    is_promised = exists(
        select(committed_instance.c.commitment_id).where(
            committed_instance.c.commitment_id == commitment.c.id,
            committed_instance.c.kept_until > now,
        )
    )
    step = performed_procedure_step.c
    settled = quarantined_instance.c
    return (
        _forget(
            database,
            commitment.c.id,
            [commitment.c.requested_at < before, commitment.c.due_at.is_(None), ~is_promised],
            committed_instance.c.commitment_id,
        )
        + _forget(
            database,
            step.sop_instance_uid,
            # One that never ended will not either.
            [or_(step.ended_at < before, step.ended_at.is_(None)), step.created_at < before],
            step_of_study.c.step_sop_instance_uid,
        )
        + _forget(
            database,
            settled.id,
            [settled.outcome.is_not(None), settled.settled_at < before],
        )
        # What says so was noted of all its studies at one time.
        + _forget(database, early_conflict.c.sop_instance_uid, [early_conflict.c.noted_at < before])
    )


def _forget(
    database: Database,
    key: Column[Any],
    is_over: Sequence[ColumnElement[bool]],
    part_of: Column[Any] | None = None,
) -> int:
    """Delete rows, and those that are ``part_of`` them, in short transactions."""
    forgotten = 0
    while True:
        with database.reading() as connection:
            if connection.execute(select(key).where(*is_over).limit(1)).first() is None:
                return forgotten
        with database.transaction() as transaction:
            connection = transaction.connection
            # Locked: whoever is asked about one just then finds all of it, or nothing.
            keys = list(
                connection.execute(
                    select(key).where(*is_over).order_by(key).limit(_AT_ONCE).with_for_update()
                ).scalars()
            )
            if part_of is not None:
                connection.execute(delete(part_of.table).where(part_of.in_(keys)))
            connection.execute(delete(key.table).where(key.in_(keys)))
        forgotten += len(keys)
