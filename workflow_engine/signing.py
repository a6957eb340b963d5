"""What a person signs, and the digest that binds them to it. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from message_contracts.case import Stage

COMMAND_LINE = "command_line"
"""How who works on the machine itself proves who they are: by being there."""


class Decision(StrEnum):
    """What a doctor says of a study."""

    AGREE = "agree"
    """The model's finding is the doctor's as well."""
    OVERRIDE = "override"
    """The finding is the doctor's own."""
    UNINTERPRETABLE = "uninterpretable"
    """The images do not allow a finding."""


MEANINGS: dict[Stage, str] = {
    Stage.DOCTOR: "Verification of the finding",
    Stage.PHARMACIST: "Review of medication",
    Stage.ADMIN: "Approval of the report",
}
"""What a signature at each stage means, as printed with it (21 CFR 11.50)."""


@dataclass(frozen=True)
class Signer:
    """A person who acts, and how they have just proved who they are."""

    user_id: UUID
    printed_name: str
    role: str
    authentication: str
    """How the second component was given: ``password``; or ``command_line``, by who has a shell."""

    @property
    def actor(self) -> str:
        """Who the history says it was: a user's id, or the name that a shell knows them by."""
        return str(self.user_id) if self.authentication != COMMAND_LINE else self.printed_name[:64]


@dataclass(frozen=True)
class Signature:
    """One person's signature under one stage of one case version."""

    id: UUID
    case_id: UUID
    case_version: int
    stage: Stage
    signer: Signer
    decision: Decision | None
    finding: str | None
    notes: str
    signed_at: datetime
    content_sha256: str = ""
    voided_at: datetime | None = None


class Act(StrEnum):
    """What a person may do to a case other than sign it."""

    RETURN = "return"
    REJECTION = "rejection"
    HOLD_RELEASE = "hold_release"
    DECISION = "decision"
    """About a conflict."""
    COMPLETION = "completion"
    """That what has arrived of a study is all of it."""
    URGENCY = "urgency"
    """That its study is to be read before others."""


@dataclass(frozen=True)
class Intervention:
    """One person's return, rejection, hold release or decision, with its reason."""

    id: UUID
    case_id: UUID
    case_version: int
    act: Act
    signer: Signer
    reason_code: str
    notes: str
    at: datetime


def canonical(value: Mapping[str, Any] | Iterable[Any]) -> bytes:
    """Return the one JSON text of a value: keys sorted, no white space, UTF-8, times in UTC."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain
    ).encode()


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no canonical form")


def digest(value: Mapping[str, Any] | Iterable[Any]) -> str:
    """Return the SHA-256 of a value's canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()


def signature_digest(
    signature: Signature, findings_sha256: str, earlier_sha256: Iterable[str]
) -> str:
    """Return the digest over all that was signed.

    It covers the findings shown, the signatures that were in force already, and the signer's own
    name, meaning, words and time.
    """
    return digest(
        {
            "id": signature.id,
            "case_id": signature.case_id,
            "case_version": signature.case_version,
            "stage": signature.stage,
            "meaning": MEANINGS[signature.stage],
            **_signer_words(signature.signer),
            "decision": signature.decision,
            "finding": signature.finding,
            "notes": signature.notes,
            "signed_at": signature.signed_at,
            "findings_sha256": findings_sha256,
            "earlier_sha256": list(earlier_sha256),
        }
    )


def intervention_digest(intervention: Intervention) -> str:
    """Return the digest over a person's act other than a signature."""
    return digest(
        {
            "id": intervention.id,
            "case_id": intervention.case_id,
            "case_version": intervention.case_version,
            "act": intervention.act,
            **_signer_words(intervention.signer),
            "reason_code": intervention.reason_code,
            "notes": intervention.notes,
            "at": intervention.at,
        }
    )


def _signer_words(signer: Signer) -> dict[str, object]:
    return {
        "user_id": signer.user_id,
        "printed_name": signer.printed_name,
        "role": signer.role,
        "authentication": signer.authentication,
    }
