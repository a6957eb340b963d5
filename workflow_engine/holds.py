"""Why cases are on hold, in the database. The one writer of the table ``hold``.

A hold either needs a conflict to be decided, and ends when the decision has been carried out, or a
person releases it. A case is on hold until the last of its holds has ended.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select, update

from imaging_store.schema.ingest import conflict
from imaging_store.schema.workflow import hold, intervention
from message_contracts.identifiers import derived_id
from message_contracts.ingest import ConflictReason, StudyConflicted
from message_contracts.intake import ConflictSettled
from service_runtime.database import Transaction
from workflow_engine.case import Case, under_holds
from workflow_engine.signing import Act


@dataclass(frozen=True)
class OpenHold:
    """A hold that has not ended."""

    id: UUID
    reason: str
    needs_decision: bool
    is_decided: bool


def open_holds(connection: Connection, case: Case) -> tuple[OpenHold, ...]:
    """Return the holds that keep a case, the oldest first."""
    rows = connection.execute(
        select(hold)
        .where(hold.c.case_id == case.id, hold.c.ended_at.is_(None))
        .order_by(hold.c.began_at, hold.c.id)
    )
    return tuple(
        OpenHold(row.id, row.reason, row.needs_decision, row.decided_at is not None) for row in rows
    )


def begin(transaction: Transaction, case: Case, body: StudyConflicted, at: datetime) -> bool:
    """Keep a hold; return whether it is news. Told again, or after its end, it is not."""
    kept = transaction.connection.execute(
        transaction.database.insert_new(hold),
        {
            "id": body.conflict_id or derived_id("hold", case.id, *_of(body)),
            "case_id": case.id,
            "reason": body.reason,
            "needs_decision": body.conflict_id is not None,
            "sop_instance_uid": body.sop_instance_uid,
            "began_at": at,
        },
    )
    return kept.rowcount == 1


def _of(body: StudyConflicted) -> tuple[str, str]:
    return body.reason, body.sop_instance_uid


def release(connection: Connection, case: Case, at: datetime) -> None:
    """End the holds of a case that need no decision."""
    connection.execute(
        update(hold)
        .where(
            hold.c.case_id == case.id, hold.c.ended_at.is_(None), hold.c.needs_decision.is_(False)
        )
        .values(ended_at=at)
    )


def decided(connection: Connection, conflict_id: UUID, at: datetime) -> None:
    """Note that a person has decided what a hold waits for."""
    connection.execute(update(hold).where(hold.c.id == conflict_id).values(decided_at=at))


def undecided(connection: Connection, conflict_id: UUID) -> None:
    """Have a hold wait for a person again, unless one has decided anew already."""
    known = conflict_of(connection, conflict_id)
    if known is not None and not is_decided(connection, known):
        connection.execute(update(hold).where(hold.c.id == conflict_id).values(decided_at=None))


def is_decided(connection: Connection, known: Row[Any]) -> bool:
    """Whether a person has decided a conflict, and the decision was not taken back."""
    act_id = decision_id(known.id, known.unsettled)
    act = select(intervention.c.id).where(intervention.c.id == act_id)
    return known.decision is not None or connection.execute(act).first() is not None


def decision_id(conflict_id: UUID, decided_before: int) -> UUID:
    """Return the id of the act by which a conflict is decided; there is one at most.

    Unless it could not be carried out: then another follows, after so many ``decided_before``.
    """
    return derived_id(Act.DECISION, conflict_id, decided_before)


def settle(transaction: Transaction, case: Case, body: ConflictSettled, at: datetime) -> range:
    """End the hold of a conflict, or have it end when the case takes up what came of it.

    Return the versions that were made of the study as it is not any more.

    Settling may be heard of before the conflict itself: then the hold is kept here, and a late
    word of the conflict begins nothing.
    """
    connection = transaction.connection
    known = conflict_of(connection, body.conflict_id)
    if known is None or not known.holds:
        return range(0)
    connection.execute(
        transaction.database.insert_new(hold),
        {
            "id": body.conflict_id,
            "case_id": case.id,
            "reason": (
                ConflictReason.INSTANCE_CONFLICT
                if known.kind == "instance"
                else ConflictReason.IDENTITY_CONFLICT
            ),
            "needs_decision": True,
            "sop_instance_uid": known.sop_instance_uid,
            "began_at": at,
            "decided_at": at,
        },
    )
    of_conflict = hold.c.id == body.conflict_id
    if body.study_version is None:
        ended = update(hold).where(of_conflict, hold.c.ended_at.is_(None)).values(ended_at=at)
        connection.execute(ended)
        return range(0)
    # Kept when the hold has ended, too: what was made of earlier versions never leaves.
    connection.execute(update(hold).where(of_conflict).values(until_version=body.study_version))
    end_reached(connection, case, at)
    return range(1, body.study_version)


def end_reached(connection: Connection, case: Case, at: datetime) -> bool:
    """End the holds whose decision the version under way has taken up; tell whether any has."""
    ended = connection.execute(
        update(hold)
        .where(
            hold.c.case_id == case.id,
            hold.c.ended_at.is_(None),
            hold.c.until_version <= case.version,
        )
        .values(ended_at=at)
    )
    return ended.rowcount > 0


def as_held(connection: Connection, case: Case, at: datetime) -> Case:
    """Return the case as its holds leave it."""
    return under_holds(case, [each.reason for each in open_holds(connection, case)], at)


def conflict_of(connection: Connection, conflict_id: UUID) -> Row[Any] | None:
    """Return a conflict as ``dicom_listener`` keeps it."""
    return connection.execute(select(conflict).where(conflict.c.id == conflict_id)).one_or_none()
