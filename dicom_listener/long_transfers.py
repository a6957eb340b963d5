"""A transfer that takes long keeps its study waiting: what is still on its way belongs to it."""

from datetime import datetime

import structlog
from sqlalchemy import bindparam, update

from imaging_store.schema.ingest import study
from service_runtime.database import Database, DatabaseUnavailable

log = structlog.get_logger()

_PROLONG = (
    update(study)
    .where(
        study.c.study_instance_uid == bindparam("uid"),
        # A version that nothing has arrived of yet begins with this instance, when it is there.
        study.c.pending_since.is_not(None),
        study.c.quiet_until < bindparam("until"),
    )
    .values(quiet_until=bindparam("until"))
)


def prolong(database: Database, study_instance_uid: str, until: datetime) -> None:
    """Have a study wait at least ``until`` then, if it waits; without the database do nothing."""
    try:
        with database.transaction() as transaction:
            transaction.connection.execute(_PROLONG, {"uid": study_instance_uid, "until": until})
    except DatabaseUnavailable as error:
        log.warning("study.not_prolonged", exc_info=error)
