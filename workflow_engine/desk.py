"""Where people act: who asks for what, what they have seen, and what is kept of their act."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection

from message_contracts.case import Stage
from message_contracts.destination import PacsDestination
from message_contracts.identifiers import derived_id
from service_runtime.database import Database, Transaction
from workflow_engine import cases
from workflow_engine.case import Case, Trigger
from workflow_engine.history import Entry
from workflow_engine.refusals import StaleCase, UnknownCase, WrongRole
from workflow_engine.signing import Act, Intervention, Signature, Signer


@dataclass(frozen=True)
class Desk:
    """Where people act: the database, and the destinations that an act may release results to."""

    database: Database
    destinations: Sequence[PacsDestination] = ()


@dataclass(frozen=True)
class Request:
    """Who wants to act on which case, when, and having seen which revision of it."""

    case_id: UUID
    signer: Signer
    at: datetime
    """Kept as given, unless the case has changed later than that by another machine's clock."""
    revision: int | None = None
    """``None``: whichever it is now."""


@dataclass(frozen=True)
class Words:
    """A coded reason, and notes in a person's words."""

    reason: StrEnum
    """One of `workflow_engine.reasons`."""
    notes: str


@dataclass(frozen=True)
class Intervening:
    """An act other than a signature, as it is kept."""

    request: Request
    words: Words
    act: Act
    trigger: Trigger
    voided: Sequence[Signature] = ()
    details: dict[str, object] = field(default_factory=dict)
    """What the history says beside the act: ids and codes."""
    id: UUID | None = None
    """Where the act can be done once only, what it is derived from says so; else by revision."""


def intervene(transaction: Transaction, doing: Intervening, before: Case, after: Case) -> None:
    """Keep an act, its words and what has become of the case, and tell the history."""
    connection, request = transaction.connection, doing.request
    done = Intervention(
        id=doing.id or derived_id(doing.act, before.id, before.version, before.revision),
        case_id=before.id,
        case_version=before.version,
        act=doing.act,
        signer=request.signer,
        reason_code=doing.words.reason,
        notes=doing.words.notes,
        at=request.at,
    )
    details = {
        "intervention_id": str(done.id),
        "content_sha256": cases.keep_intervention(connection, done),
        "voided": cases.void(connection, doing.voided, request.at),
        **doing.details,
    }
    entry = Entry(
        doing.trigger,
        request.at,
        actor=request.signer.actor,
        reason_code=doing.words.reason,
        details=details,
    )
    cases.change(connection, before, after, entry)


def case_of(connection: Connection, request: Request) -> tuple[Case, Request]:
    """Return the case, and the request at a time after all that happened to the case before.

    The clock of another machine may be ahead of ours: an approval from before the doctor's
    signature would rest on nothing.

    Raises
    ------
    UnknownCase, StaleCase
        There is none, or not as the person has seen it.
    """
    case = cases.find(connection, request.case_id)
    if case is None:
        raise UnknownCase("there is no case of this id")
    if request.revision is not None and request.revision != case.revision:
        raise StaleCase("the case has changed since you looked at it: read it again")
    return case, replace(request, at=max(request.at, case.changed_at + timedelta(microseconds=1)))


def require_role(signer: Signer, stage: Stage) -> None:
    """Raise `WrongRole` unless the signer has this role."""
    if signer.role != stage:
        raise WrongRole(f"this is for the {stage}")
