"""A transfer that takes long keeps its study waiting: what is still on its way belongs to it."""

from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, bindparam, select, update

from imaging_store.schema.ingest import study
from service_runtime.database import Database, DatabaseUnavailable

log = structlog.get_logger()

_MOST = 0.75
"""More than the half after which a transfer asks again."""
_WAITS: tuple[ColumnElement[bool], ...] = (
    study.c.study_instance_uid == bindparam("uid"),
    # A version that nothing has arrived of yet begins with this instance, when it is there.
    study.c.pending_since.is_not(None),
    # Where others keep it waiting nothing is written.
    study.c.quiet_until < bindparam("soon"),
)
_IS_SOON_DUE = select(study.c.study_instance_uid).where(*_WAITS)
_PROLONG = update(study).where(*_WAITS).values(quiet_until=bindparam("until"))


def prolong(
    database: Database, study_instance_uid: str, now: datetime, quiet_period: timedelta
) -> None:
    """Have a study wait for a quiet period from now, if it waits and would not for most of that.

    Without the database do nothing.
    """
    values = {
        "uid": study_instance_uid,
        "soon": now + _MOST * quiet_period,
        "until": now + quiet_period,
    }
    try:
        with database.reading() as connection:
            if connection.execute(_IS_SOON_DUE, values).first() is None:
                return
        with database.transaction() as transaction:
            transaction.connection.execute(_PROLONG, values)
    except DatabaseUnavailable as error:
        log.warning("study.not_prolonged", exc_info=error)
