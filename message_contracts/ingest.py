"""What the listener says of studies."""

from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from pydantic import Field

from message_contracts.identifiers import DicomUid
from message_contracts.message import Message


class CompletionReason(StrEnum):
    """Why a version of a study was taken to be complete."""

    QUIET = "quiet"
    """No instance has arrived for the quiet period."""
    MPPS = "mpps"
    """Every instance that the performed procedure step lists has arrived."""
    FORCED = "forced"
    """A person said so."""
    DEADLINE = "deadline"
    """The study has been arriving for longer than a study may."""
    SETTLED = "settled"
    """A person's decision about a conflict has changed the study."""


class ConflictReason(StrEnum):
    """Why a person must look before anything of this study is signed or sent."""

    IDENTITY_CONFLICT = "identity_conflict"
    """An instance names another patient than its study, or none."""
    INSTANCE_CONFLICT = "instance_conflict"
    """An instance came again under the same SOP Instance UID with other content."""
    PROCEDURE_DISCONTINUED = "procedure_discontinued"
    """The modality discontinued the procedure step: the wrong worklist entry (110514 DCM)."""
    INSTANCES_REJECTED = "instances_rejected"
    """A Key Object Selection rejects instances of the study (PS3.16 CID 7011)."""


class StudyOpened(Message):
    """The first instance of a study has been kept."""

    TYPE: ClassVar[str] = "study.opened"

    study_instance_uid: DicomUid
    """(0020,000D)."""


class StudyReceived(Message):
    """The first version of a study is complete."""

    TYPE: ClassVar[str] = "study.received"

    study_instance_uid: DicomUid
    """(0020,000D)."""

    study_version: int = Field(ge=1)
    """Counts from 1; a late image makes the next one."""

    instance_count: int = Field(ge=0)
    """Instances in the store that belong to this version or an earlier one.

    Without those that a person excluded; none where that were all.
    """

    reason: CompletionReason


class StudyUpdated(StudyReceived):
    """A further version of a study is complete: images came after the last one."""

    TYPE: ClassVar[str] = "study.updated"


class StudyConflicted(Message):
    """An instance was kept that contradicts its study; the case goes on hold."""

    TYPE: ClassVar[str] = "study.conflicted"

    study_instance_uid: DicomUid
    """(0020,000D)."""

    sop_instance_uid: DicomUid
    """(0008,0018) of the instance that contradicts."""

    reason: ConflictReason

    conflict_id: UUID | None = None
    """Which conflict a person has to decide; none where there is only a hold to release."""
