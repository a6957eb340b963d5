"""Which files of the store a row claims."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import PurePosixPath

from sqlalchemy import ColumnElement, Table, or_, select, union_all

from imaging_store.schema.ingest import (
    duplicate_instance,
    instance,
    quarantined_instance,
    removal,
)
from service_runtime.database import Database

_DIGEST_OF_UID = "x"
"""With it a file name begins whose UID is malformed."""


def claimed(database: Database, keys: Sequence[str]) -> set[str]:
    """Return which of these files a row claims, or have their removal under way.

    In one statement: a row that moves from one table to another is seen in one of them.

    Raises
    ------
    DatabaseUnavailable
        It cannot be told.
    """
    digests = [PurePosixPath(key).name.partition(".")[0] for key in keys]
    tables = [
        select(table.c.key).where(_is_of(table, keys), table.c.purged_at.is_(None))
        for table in (instance, duplicate_instance)
    ]
    in_quarantine = select(quarantined_instance.c.key).where(
        quarantined_instance.c.id.in_(digests), quarantined_instance.c.outcome.is_(None)
    )
    leaving = select(removal.c.key).where(removal.c.key.in_(keys))
    with database.reading() as connection:
        found = set(connection.execute(union_all(*tables, in_quarantine, leaving)).scalars())
    return found | set(_reasons(found))


def purged_since(database: Database, keys: Sequence[str]) -> dict[str, datetime]:
    """Return since when those of these files have to go of which a row says that it was purged.

    Raises
    ------
    DatabaseUnavailable
        It cannot be told.
    """
    tables = [
        select(removal.c.key, removal.c.since)
        .join(table, table.c.key == removal.c.key)
        .where(removal.c.key.in_(keys), _is_of(table, keys), table.c.purged_at.is_not(None))
        for table in (instance, duplicate_instance)
    ]
    with database.reading() as connection:
        return {row.key: row.since for row in connection.execute(union_all(*tables))}


def _is_of(table: Table, keys: Sequence[str]) -> ColumnElement[bool]:
    """Say of a row that it may claim one of these files.

    No index has the key: it is asked for only where the UID cannot be.
    """
    uids = [PurePosixPath(key).name.partition("-")[0] for key in keys]
    odd = [key for key, uid in zip(keys, uids, strict=True) if uid.startswith(_DIGEST_OF_UID)]
    of_uid = table.c.sop_instance_uid.in_(uids)
    return or_(of_uid, table.c.key.in_(odd)) if odd else of_uid


def _reasons(keys: Iterable[str]) -> Iterable[str]:
    """Give the keys of the texts that lie beside what is in quarantine."""
    return (f"{key.removesuffix('.dcm')}.reason.txt" for key in keys)
