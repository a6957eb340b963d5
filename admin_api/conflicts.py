"""What contradicts a study, side by side with what is known of it, and the decision about it."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel
from sqlalchemy import Connection, Row, Select, func, select

from admin_api.case_views import CaseDetail
from admin_api.cases import CaseId, case_row
from admin_api.identity import SignedIn
from admin_api.installation import ApiDependency
from admin_api.sign_off import Act, NotesNeeded, answer, request_of
from imaging_store.schema.ingest import conflict, conflicting_instance
from imaging_store.schema.workflow import cases, intervention
from message_contracts.case import Stage
from message_contracts.intake import ConflictDecision
from workflow_engine import commands
from workflow_engine.commands import DecisionReason, Words

router = APIRouter(prefix="/cases/{case_id}/conflicts", tags=["conflicts"])

ConflictId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        json_schema_extra={"format": "uuid"},
    ),
]
"""A conflict's id; checked by a pattern, whose complaint quotes nothing."""


class ConflictState(StrEnum):
    """How far a conflict has come."""

    OPEN = "open"
    DECIDED = "decided"
    """A person has decided; it is being carried out."""
    SETTLED = "settled"


class ConflictView(BaseModel):
    """What contradicts the study. Values are by DICOM keyword."""

    id: UUID
    case_id: UUID | None
    """null until the workflow has heard of the study."""
    kind: str
    """identity: another patient; update: other patient or order attributes; instance: content."""
    holds: bool
    """Whether the case is on hold until it is decided."""
    state: ConflictState
    sop_instance_uid: str
    """Of the first instance that showed it."""
    instance_count: int
    """How many instances show it; one decision is about all of them."""
    differing: list[str]
    """Keywords of what differs; the tag of what has none."""
    known: dict[str, str]
    """What was known when it was opened: of the patient always, of the rest where it differs."""
    claimed: dict[str, str]
    """What the newcomer says."""
    opened_at: datetime
    decision: ConflictDecision | None
    decided_by: str | None
    """A user's id, or who it was at the command line."""
    settled_at: datetime | None


class Conflicts(BaseModel):
    """The conflicts of a case, the oldest first."""

    items: list[ConflictView]


class ConflictDecisionAct(Act):
    """Which is right, and why."""

    decision: ConflictDecision
    reason_code: DecisionReason
    notes: NotesNeeded


@router.get("")
def list_conflicts(_user: SignedIn, api: ApiDependency, case_id: CaseId) -> Conflicts:
    """List what contradicts the study of a case, decided or not."""
    with api.database.reading() as connection:
        row = case_row(connection, UUID(case_id))
        of_case = conflict.c.study_instance_uid == row.study_instance_uid
        return Conflicts(items=views(connection, _CONFLICTS.where(of_case)))


@router.post("/{conflict_id}/decision", status_code=HTTPStatus.ACCEPTED)
def decide_conflict(
    user: SignedIn,
    api: ApiDependency,
    case_id: CaseId,
    conflict_id: ConflictId,
    body: ConflictDecisionAct,
) -> CaseDetail:
    """Say which is right: keep what is known, replace it, or exclude what contradicts it.

    Only an admin may. The listener carries it out; the hold ends when that is done.
    """
    request = request_of(api, user, case_id, body, Stage.ADMIN)
    words = Words(body.reason_code, body.notes)
    decided = commands.decide_conflict(api.desk, request, UUID(conflict_id), body.decision, words)
    return answer(api, decided, user)


def views(connection: Connection, statement: Select[Any]) -> list[ConflictView]:
    """Return the conflicts that ``statement``, of `open_conflicts` or like it, selects."""
    rows = connection.execute(statement).all()
    ids = [row.id for row in rows]
    counts = {
        row.conflict_id: row.instance_count
        for row in connection.execute(
            select(conflicting_instance.c.conflict_id, func.count().label("instance_count"))
            .where(conflicting_instance.c.conflict_id.in_(ids))
            .group_by(conflicting_instance.c.conflict_id)
        )
    }
    decided = _acts(connection, rows)
    return [_view(row, counts.get(row.id, 0), decided) for row in rows]


def conflict_of(conflict_id: UUID) -> Select[Any]:
    """Select one conflict."""
    return _CONFLICTS.where(conflict.c.id == conflict_id)


def open_conflicts() -> Select[Any]:
    """Select every conflict that has not been settled, the oldest first."""
    return _CONFLICTS.where(conflict.c.decision.is_(None))


_CONFLICTS = (
    select(conflict, cases.c.id.label("case_id"))
    .outerjoin(cases, cases.c.study_instance_uid == conflict.c.study_instance_uid)
    .order_by(conflict.c.opened_at, conflict.c.id)
)


def _acts(connection: Connection, rows: Sequence[Row[Any]]) -> set[UUID]:
    ids = {commands.decision_id(each.id, each.unsettled): each.id for each in rows}
    found = connection.execute(select(intervention.c.id).where(intervention.c.id.in_(ids)))
    return {ids[each] for each in found.scalars()}


def _view(row: Row[Any], count: int, decided: set[UUID]) -> ConflictView:
    state = ConflictState.DECIDED if row.id in decided else ConflictState.OPEN
    return ConflictView(
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        state=ConflictState.SETTLED if row.decision is not None else state,
        instance_count=count,
    )


_AS_THEY_ARE = (
    *(
        "id",
        "case_id",
        "kind",
        "holds",
        "sop_instance_uid",
        "differing",
        "known",
        "claimed",
        "opened_at",
    ),
    *("decision", "decided_by", "settled_at"),
)
