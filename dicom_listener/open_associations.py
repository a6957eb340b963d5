"""Associations that hold a study open: one that has sent to it may go on sending.

A row says which study an association has sent to last. It is written together with the first
instance of that study and taken away when the association ends, so that a further instance of the
same study costs nothing.
"""

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, bindparam, delete, select

from imaging_store.schema.ingest import open_association
from service_runtime.database import Database, Transaction
from service_runtime.process_identity import token_of
from service_runtime.statements import Change

_LONGEST_KEPT = timedelta(days=1)
_PROCESS_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(slots=True, eq=False)
class OpenAssociation:
    """An association of this process, for as long as it lives."""

    id: str
    calling_ae_title: str
    process: str
    study_instance_uid: str = ""
    """Which study its row holds open, after all that was answered for; empty while it has none."""


def open_for(calling_ae_title: str) -> OpenAssociation:
    """Return a new association of this process; it holds nothing open yet."""
    return OpenAssociation(str(uuid4()), calling_ae_title[:16], this_process())


def this_process() -> str:
    """Return host, process id and start time of this process."""
    return _identity(os.getpid())


@cache
def _identity(process_id: int) -> str:
    return f"{_host()}{token_of(process_id)}"


def _host() -> str:
    """Return what tells processes apart from those that another host, or container, numbers."""
    try:
        namespace = _PROCESS_NAMESPACE.stat().st_ino
    except OSError:
        namespace = 0
    return f"{socket.gethostname()[:48]}/{namespace}:"


def hold_open(
    transaction: Transaction, sent: Iterable[tuple[OpenAssociation, str, datetime]]
) -> None:
    """Have associations hold open what they have sent to last, and nothing else any more.

    ``sent`` has association, study and moment of each instance, in the order in which they came.
    """
    holds: dict[str, str] = {}
    moved: dict[str, tuple[OpenAssociation, str, datetime]] = {}
    for each in sent:
        association, study_instance_uid, _ = each
        held = holds.get(association.id, association.study_instance_uid)
        if held != study_instance_uid:
            holds[association.id] = study_instance_uid
            moved[association.id] = each
    if not moved:
        return
    # Of a commit that failed nobody knows whether it left a row.
    _remove(transaction, moved)
    _ADD.run(
        transaction,
        [
            {
                "id": association.id,
                "process": association.process,
                "calling_ae_title": association.calling_ae_title,
                "study_instance_uid": study_instance_uid,
                "since": at,
            }
            for association, study_instance_uid, at in moved.values()
        ],
    )
    for association, study_instance_uid, _ in moved.values():
        transaction.after_commit(partial(_note, association, study_instance_uid))


def let_go(transaction: Transaction, associations: Sequence[OpenAssociation]) -> None:
    """Have associations that have ended hold nothing open; to be called when all is entered."""
    _remove(transaction, [association.id for association in associations])
    for association in associations:
        transaction.after_commit(partial(_note, association, ""))


def _note(association: OpenAssociation, study_instance_uid: str) -> None:
    association.study_instance_uid = study_instance_uid


def forget_dead(database: Database, now: datetime) -> None:
    """Take away the rows of this host's processes that are gone, and of whatever is long past."""
    columns = open_association.c
    with database.reading() as connection:
        dead = [process for process in _processes(connection) if not _lives(process)]
        old = connection.execute(
            select(columns.id).where(columns.since < now - _LONGEST_KEPT).limit(1)
        ).first()
    if not dead and old is None:
        return
    with database.transaction() as transaction:
        transaction.connection.execute(
            delete(open_association).where(
                columns.process.in_(dead) | (columns.since < now - _LONGEST_KEPT)
            )
        )


def _processes(connection: Connection) -> list[str]:
    """Return the processes of this host that have rows."""
    column = open_association.c.process
    rows = connection.execute(
        select(column).distinct().where(column.startswith(_host(), autoescape=True))
    )
    return list(rows.scalars())


def _lives(process: str) -> bool:
    token = process.removeprefix(_host())
    try:
        return token_of(int(token.partition("-")[0])) == token
    except (ProcessLookupError, ValueError):
        return False


def _remove(transaction: Transaction, ids: Iterable[str]) -> None:
    _REMOVE.run(transaction, [{"of": each} for each in sorted(ids)])


_ADD = Change(open_association.insert())
_REMOVE = Change(delete(open_association).where(open_association.c.id == bindparam("of")))
