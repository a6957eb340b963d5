"""The append-only history of all cases: each row's digest covers the row before it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from imaging_store.schema.workflow import history, history_head
from service_runtime.errors import PermanentError
from workflow_engine.case import Case, Trigger
from workflow_engine.signing import canonical

SYSTEM = "system"
"""The actor where no person is."""


class NoHistoryHead(PermanentError):
    """The row that tells the end of the chain is gone: the history was tampered with."""


@dataclass(frozen=True)
class Entry:
    """What happened to a case."""

    trigger: Trigger
    at: datetime
    actor: str = SYSTEM
    """``system``, or the user's id."""
    reason_code: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """Ids, digests and codes; never a person's words."""


def append(connection: Connection, before: Case | None, after: Case, entry: Entry) -> None:
    """Append a row to the chain. Whoever else appends waits until this transaction ends.

    Raises
    ------
    NoHistoryHead
        The database was not laid down by the migrations, or was tampered with.
    """
    head = connection.execute(
        select(history_head).where(history_head.c.id == 1).with_for_update()
    ).one_or_none()
    if head is None:
        raise NoHistoryHead("history_head: its row is missing; run: countersign audit verify")
    row: dict[str, Any] = {
        "sequence": head.sequence + 1,
        "case_id": after.id,
        "case_version": after.version,
        "at": entry.at,
        "actor": entry.actor,
        "trigger": str(entry.trigger),
        "from_status": str(before.status) if before else None,
        "to_status": str(after.status),
        "stage": str(after.stage) if after.stage else None,
        "reason_code": entry.reason_code,
        "details": dict(entry.details),
        "previous_sha256": head.sha256,
    }
    row["sha256"] = row_digest(row)
    connection.execute(insert(history), row)
    connection.execute(
        update(history_head)
        .where(history_head.c.id == 1)
        .values(sequence=row["sequence"], sha256=row["sha256"])
    )


def row_digest(row: Mapping[str, Any] | Row[Any]) -> str:
    """Return the digest that a row of this content must carry."""
    values = row if isinstance(row, Mapping) else row._mapping  # noqa: SLF001 - its public name
    content = {
        column.name: values[column.name] for column in history.columns if column.name != "sha256"
    }
    return hashlib.sha256(str(values["previous_sha256"]).encode() + canonical(content)).hexdigest()
