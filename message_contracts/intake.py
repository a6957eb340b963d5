"""What people decide of what came in, and what became of it. Their words stay in the database."""

from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from pydantic import Field

from message_contracts.identifiers import DicomUid, Digest
from message_contracts.message import Message


class ConflictDecision(StrEnum):
    """What a person says of an instance that contradicts its study."""

    KEEP = "keep"
    """What was there first is right; the newcomer is kept beside it and changes nothing."""
    REPLACE = "replace"
    """The newcomer is right: its patient and order attributes, or its content, take the place."""
    EXCLUDE = "exclude"
    """The newcomer does not belong to this study: no model reads it, and no report rests on it."""


class QuarantineDecision(StrEnum):
    """What becomes of what could not be understood."""

    RELEASE = "release"
    """Receive it once more, as if it had just arrived."""
    DISCARD = "discard"


class UnsettledReason(StrEnum):
    """Why a decision about a conflict could not be carried out."""

    NEWCOMER_NOT_KEPT = "newcomer_not_kept"
    """The bytes that were to take the place are not kept any more."""
    NEWCOMER_NOT_READABLE = "newcomer_not_readable"
    """They are kept, and do not say any more which instance they are."""
    NOT_CARRIED_OUT = "not_carried_out"
    """Every attempt failed; a dead letter says why."""


class CompletionRequested(Message):
    """A person says that what has arrived of a study is all of it."""

    TYPE: ClassVar[str] = "completion.requested"

    study_instance_uid: DicomUid
    """(0020,000D)."""


class ConflictDecided(Message):
    """A person has said which is right."""

    TYPE: ClassVar[str] = "conflict.decided"

    conflict_id: UUID
    study_instance_uid: DicomUid
    """(0020,000D)."""

    decision: ConflictDecision
    decided_by: str = Field(min_length=1, max_length=64)
    """The user's id."""

    decided_before: int = Field(default=0, ge=0)
    """How many decisions of this conflict were taken back, as ``conflict.unsettled`` told."""


class ConflictSettled(ConflictDecided):
    """The decision has been carried out; what it changed of the study is durable."""

    TYPE: ClassVar[str] = "conflict.settled"

    study_version: int | None = Field(default=None, ge=1)
    """The study version that the decision makes; until the case has taken it up nothing leaves.

    ``None`` where what was read and signed so far goes on holding.
    """


class ConflictUnsettled(Message):
    """A decision could not be carried out: nothing has changed, and a person decides anew."""

    TYPE: ClassVar[str] = "conflict.unsettled"

    conflict_id: UUID
    study_instance_uid: DicomUid
    """(0020,000D)."""

    decided_before: int = Field(ge=0)
    """Of the decision, as ``conflict.decided`` told."""

    reason: UnsettledReason


class InstanceDuplicated(Message):
    """An instance came again with other bytes; the two are still to be compared."""

    TYPE: ClassVar[str] = "instance.duplicated"

    study_instance_uid: DicomUid
    """(0020,000D) of the instance that came first."""

    sop_instance_uid: DicomUid
    digest: Digest
    """Of the data set that came again."""


class QuarantineDecided(Message):
    """A person has decided about something in quarantine."""

    TYPE: ClassVar[str] = "quarantine.decided"

    quarantined_instance_id: Digest
    decision: QuarantineDecision
    decided_by: str = Field(min_length=1, max_length=64)
    """The user's id."""
