"""What contradicts a study: kept as a conflict, of which a person hears once and decides once.

Whatever shows the same conflict joins it: all instances of one claimed patient, all duplicates
that differ from their firsts in the same way. Values stay in the table; messages carry ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from dicom_listener.announcements import conflict_opened
from dicom_listener.identity import Identity, claim_the_same
from imaging_store.schema.ingest import conflict, conflicting_instance
from message_contracts.identifiers import derived_id
from message_contracts.ingest import ConflictReason
from message_contracts.intake import ConflictDecision
from service_runtime.database import Transaction
from service_runtime.messaging import outbox


class ConflictKind(StrEnum):
    """What a conflict is about."""

    IDENTITY = "identity"
    """An instance names another patient than its study, or none."""
    UPDATE = "update"
    """An instance came again with other attributes of patient or order."""
    INSTANCE = "instance"
    """An instance came again with other content."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What one instance says against its study, or against the first of its SOP Instance UID."""

    kind: ConflictKind
    study_instance_uid: str
    sop_instance_uid: str
    digest: str
    holds: bool
    """Whether nothing may be signed or sent until a person has decided."""
    reason: ConflictReason = ConflictReason.IDENTITY_CONFLICT
    """Why it holds."""
    differing: tuple[str, ...] = ()
    known: Mapping[str, str] = field(default_factory=dict)
    claimed: Mapping[str, str] = field(default_factory=dict)


def note(transaction: Transaction, found: Contradiction, at: datetime) -> None:
    """Keep what contradicts; where nobody has heard of such a conflict yet, say so.

    The caller holds the lock of the study, so that two cannot open the same conflict.
    """
    for row in _conflicts_of(transaction, found.study_instance_uid):
        if row.decision is None and _is_same(row, found):
            _join(transaction, row.id, found)
            return
    _open(transaction, found, at)


def note_identity(
    transaction: Transaction, found: Contradiction, claimed: Identity, at: datetime
) -> bool:
    """Keep that an instance names another patient; return whether it is to be left out.

    What a person has decided about this patient's instances holds for those that come later.
    """
    for row in _conflicts_of(transaction, found.study_instance_uid):
        if row.kind == ConflictKind.IDENTITY and claim_the_same(_identity(row.claimed), claimed):
            _join(transaction, row.id, found)
            return bool(row.decision == ConflictDecision.EXCLUDE)
        if is_accepted(row, claimed):
            return False
    _open(transaction, found, at)
    return False


def is_decided_for(transaction: Transaction, study_instance_uid: str, claimed: Identity) -> bool:
    """Whether a person has said that instances of this patient belong to the study."""
    return any(
        is_accepted(row, claimed)
        or (
            row.kind == ConflictKind.IDENTITY
            and row.decision == ConflictDecision.KEEP
            and claim_the_same(_identity(row.claimed), claimed)
        )
        for row in _conflicts_of(transaction, study_instance_uid)
    )


def is_accepted(row: Row[Any], claimed: Identity) -> bool:
    """Whether this is the patient that the study was known by before it was corrected, or since."""
    if row.decision != ConflictDecision.REPLACE or row.kind == ConflictKind.INSTANCE:
        return False
    return any(claim_the_same(_identity(each), claimed) for each in (row.known, row.claimed))


def _conflicts_of(transaction: Transaction, study_instance_uid: str) -> list[Row[Any]]:
    return list(
        transaction.connection.execute(
            select(conflict)
            .where(conflict.c.study_instance_uid == study_instance_uid)
            .order_by(conflict.c.opened_at, conflict.c.id)
        )
    )


def _is_same(row: Row[Any], found: Contradiction) -> bool:
    if (row.kind, row.differing, row.holds) != (found.kind, list(found.differing), found.holds):
        return False
    return found.kind is ConflictKind.INSTANCE or row.claimed == found.claimed


def _identity(values: Mapping[str, str]) -> Identity:
    return Identity.of(values)


def _open(transaction: Transaction, found: Contradiction, at: datetime) -> None:
    uid = found.study_instance_uid
    conflict_id = derived_id("conflict", found.kind, uid, found.sop_instance_uid, found.digest)
    transaction.connection.execute(
        transaction.database.insert_new(conflict),
        {
            "id": conflict_id,
            "study_instance_uid": uid,
            "kind": str(found.kind),
            "sop_instance_uid": found.sop_instance_uid,
            "digest": found.digest,
            "known": dict(found.known),
            "claimed": dict(found.claimed),
            "differing": list(found.differing),
            "holds": found.holds,
            "opened_at": at,
        },
    )
    _join(transaction, conflict_id, found)
    if found.holds:
        outbox.send(
            transaction,
            conflict_opened(uid, found.sop_instance_uid, found.reason, conflict_id, at),
        )


def _join(transaction: Transaction, conflict_id: UUID, found: Contradiction) -> None:
    transaction.connection.execute(
        transaction.database.insert_new(conflicting_instance),
        {
            "conflict_id": conflict_id,
            "sop_instance_uid": found.sop_instance_uid,
            "digest": found.digest,
        },
    )
