"""What could not be understood, and what people decide about it.

The one writer of ``quarantine_decision``; ``dicom_listener`` carries decisions out.
"""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row, insert, select

from admin_api.identity import Confirmation, Password, SignedIn, SignedInAdmin
from admin_api.installation import ApiDependency
from admin_api.sign_off import NotesNeeded, confirm_identity
from imaging_store.schema.administration import quarantine_decision
from imaging_store.schema.ingest import quarantined_instance
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.intake import QuarantineDecided, QuarantineDecision
from service_runtime.database import Database
from service_runtime.errors import PermanentError
from service_runtime.messaging import outbox
from service_runtime.problem_details import Problem

router = APIRouter(prefix="/quarantine", tags=["quarantine"])

_SOURCE = "admin_api"
_SHOWN = 1000

QuarantinedId = Annotated[str, Path(pattern=r"^([0-9a-f]{32}|[0-9a-f]{64})$")]


class UnknownQuarantined(PermanentError):
    """There is nothing of this id in quarantine, or it has been settled."""


class QuarantinedView(BaseModel):
    """Something that could not be understood."""

    id: str
    """The SHA-256 of its data set."""
    reason: str
    calling_ae_title: str
    called_ae_title: str
    sop_class_uid: str
    """What the command said it was."""
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    received_at: datetime
    decisions: list["DecisionView"]
    """What people have decided, the oldest first: what cannot be released stays."""
    outcome: str | None
    """released or discarded; null while it is in quarantine."""
    settled_at: datetime | None


class DecisionView(BaseModel):
    """What a person decided about it, and why."""

    decision: QuarantineDecision
    decided_by: str
    decided_at: datetime
    why: str


class QuarantineList(BaseModel):
    """What is in quarantine, the oldest first."""

    items: list[QuarantinedView]


class QuarantineAct(BaseModel):
    """What becomes of it, and why."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    password: Password
    decision: QuarantineDecision = Field(description="Receive it once more, or give it up.")
    why: NotesNeeded


@router.get("")
def list_quarantine(
    _user: SignedIn, api: ApiDependency, *, settled: bool = False
) -> QuarantineList:
    """List what is in quarantine; with ``settled``, what has left it too."""
    return QuarantineList(items=list_all(api.database, settled=settled))


@router.post("/{quarantined_id}/decision", status_code=HTTPStatus.ACCEPTED)
def decide_quarantined(
    user: SignedInAdmin, api: ApiDependency, quarantined_id: QuarantinedId, body: QuarantineAct
) -> QuarantinedView:
    """Have it received once more by the same checks, or have its bytes removed."""
    confirm_identity(api, user, Confirmation(body.password))
    try:
        decide(api.database, quarantined_id, body.decision, (str(user.id), body.why), api.clock())
    except UnknownQuarantined as error:
        raise Problem(HTTPStatus.NOT_FOUND, "unknown-quarantined", str(error)) from None
    with api.database.reading() as connection:
        return _view(connection, _row(connection, quarantined_id))


def list_all(database: Database, *, settled: bool) -> list[QuarantinedView]:
    """Return what is in quarantine, and where ``settled`` what was, the oldest first."""
    statement = select(quarantined_instance).order_by(
        quarantined_instance.c.received_at, quarantined_instance.c.id
    )
    if not settled:
        statement = statement.where(quarantined_instance.c.outcome.is_(None))
    with database.reading() as connection:
        rows = connection.execute(statement.limit(_SHOWN)).all()
        return [_view(connection, row) for row in rows]


def decide(
    database: Database,
    quarantined_id: str,
    decision: QuarantineDecision,
    by: tuple[str, str],
    at: datetime,
) -> None:
    """Keep who decided what and why, and have it carried out.

    Raises
    ------
    UnknownQuarantined
        There is no such thing in quarantine.
    """
    who, why = by
    with database.transaction() as transaction:
        row = _row(transaction.connection, quarantined_id)
        if row.outcome is not None:
            raise UnknownQuarantined(f"it has been {row.outcome} before")
        transaction.connection.execute(
            insert(quarantine_decision),
            {
                "quarantined_instance_id": quarantined_id,
                "decision": str(decision),
                "decided_at": at,
                "decided_by": who,
                "why": why,
            },
        )
        body = QuarantineDecided(
            quarantined_instance_id=quarantined_id, decision=decision, decided_by=who[:64]
        )
        outbox.send(
            transaction,
            Envelope.of(
                body,
                source=_SOURCE,
                time=at,
                id=derived_id(QuarantineDecided.TYPE, quarantined_id, at.isoformat()),
            ),
        )


def _row(connection: Connection, quarantined_id: str) -> Row[Any]:
    row = connection.execute(
        select(quarantined_instance).where(quarantined_instance.c.id == quarantined_id)
    ).one_or_none()
    if row is None:
        raise UnknownQuarantined("there is nothing of this id in quarantine")
    return row


def _view(connection: Connection, row: Row[Any]) -> QuarantinedView:
    decisions = connection.execute(
        select(quarantine_decision)
        .where(quarantine_decision.c.quarantined_instance_id == row.id)
        .order_by(quarantine_decision.c.decided_at)
    )
    fields = {
        name: getattr(row, name) for name in QuarantinedView.model_fields if name in row._fields
    }
    return QuarantinedView(
        **fields,
        decisions=[
            DecisionView(
                decision=each.decision,
                decided_by=each.decided_by,
                decided_at=each.decided_at,
                why=each.why,
            )
            for each in decisions
        ],
    )
