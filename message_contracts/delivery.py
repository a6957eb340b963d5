"""What is to leave, and what became of it."""

from typing import Any, ClassVar, Protocol, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from message_contracts.identifiers import DicomUid, derived_id
from message_contracts.message import Message

EHR = "EHR"
"""The name of the one destination that reports go to."""


PROCESSING_FAILURE = 0x0110
"""Failure Reason (0008,1197) where none is given."""


def request_id(
    message_type: str,
    case_id: UUID,
    case_version: int,
    destination: str,
    requested_before: int = 0,
) -> UUID:
    """Return the id of the message that asks a destination for something about a case version.

    What is asked for once more after it was withdrawn is another message.
    """
    if destination == EHR:
        return derived_id(message_type, case_id, case_version)
    again = (requested_before,) if requested_before else ()
    return derived_id(message_type, case_id, case_version, destination, *again)


class InstanceOutcome(BaseModel):
    """What a PACS answered for one instance."""

    model_config = ConfigDict(frozen=True)

    sop_instance_uid: DicomUid
    status: int = Field(ge=0, le=0xFFFF)
    """The C-STORE response's Status (0000,0900), PS3.4 §B.2.3."""


class ResourceOutcome(BaseModel):
    """What the EHR answered for one entry of the transaction."""

    model_config = ConfigDict(frozen=True)

    resource_type: str
    status: str
    """``Bundle.entry.response.status``, such as ``201 Created``."""

    server_id: str | None = None
    """The logical id that the server gave it."""


class AttachmentRequested(Message):
    """These stored instances go to that PACS."""

    TYPE: ClassVar[str] = "attachment.requested"

    case_id: UUID
    case_version: int = Field(ge=1)
    study_instance_uid: DicomUid
    destination: str = Field(min_length=1, max_length=64)
    """The destination's name in the settings."""

    sop_instance_uids: tuple[DicomUid, ...] = Field(min_length=1)


class AttachmentDelivered(Message):
    """The PACS has taken every instance."""

    TYPE: ClassVar[str] = "attachment.delivered"

    case_id: UUID
    case_version: int = Field(ge=1)
    destination: str
    outcomes: tuple[InstanceOutcome, ...]


class AttachmentFailed(AttachmentDelivered):
    """The PACS has refused an instance for good, or could not be reached while we tried."""

    TYPE: ClassVar[str] = "attachment.failed"

    reason: str = Field(min_length=1, max_length=500)


class CommitmentRefusal(BaseModel):
    """An instance that a PACS does not commit to keep."""

    model_config = ConfigDict(frozen=True)

    sop_instance_uid: DicomUid
    failure_reason: int = Field(ge=0, le=0xFFFF)
    """(0008,1197), PS3.3 §C.14.1.1."""


class Attributes(Protocol):
    """A DICOM data set, by the keywords of its attributes."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of an attribute."""


class CommitmentReported(Message):
    """A PACS has told us which instances it commits to keep (PS3.4 §J.3.3)."""

    TYPE: ClassVar[str] = "commitment.reported"

    calling_ae_title: str = Field(min_length=1, max_length=16)
    """Who told."""

    transaction_uid: DicomUid
    """(0008,1195), which we asked under."""

    committed: tuple[DicomUid, ...]
    refused: tuple[CommitmentRefusal, ...]

    @classmethod
    def told(cls, calling_ae_title: str, information: Attributes) -> Self:
        """Return what the Event Information of an N-EVENT-REPORT says, by attribute keywords.

        Raises
        ------
        ValueError
            An attribute is missing, or no UID.
        """
        refused = tuple(
            CommitmentRefusal(
                sop_instance_uid=_referenced(item),
                failure_reason=item.get("FailureReason") or PROCESSING_FAILURE,
            )
            for item in information.get("FailedSOPSequence") or ()
        )
        return cls(
            calling_ae_title=calling_ae_title,
            transaction_uid=str(information.get("TransactionUID", "")),
            committed=tuple(map(_referenced, information.get("ReferencedSOPSequence") or ())),
            refused=refused,
        )


def _referenced(item: Attributes) -> str:
    return str(item.get("ReferencedSOPInstanceUID", ""))


class RejectionRequested(Message):
    """These instances went to that PACS and should not have: a rejection note follows them.

    That is an IOCM Key Object Selection, titled 113001 DCM "Rejected for Quality Reasons".
    """

    TYPE: ClassVar[str] = "rejection.requested"

    case_id: UUID
    case_version: int = Field(ge=1)
    study_instance_uid: DicomUid
    destination: str = Field(min_length=1, max_length=64)
    sop_instance_uids: tuple[DicomUid, ...] = Field(min_length=1)
    """What is rejected; the note's own UID is derived from these."""


class RejectionDelivered(Message):
    """The PACS has taken the rejection note, or had taken nothing that is to be rejected."""

    TYPE: ClassVar[str] = "rejection.delivered"

    case_id: UUID
    case_version: int = Field(ge=1)
    destination: str
    sop_instance_uids: tuple[DicomUid, ...] = ()
    """What the note rejects: what the PACS has, or may have, taken."""


class RejectionFailed(RejectionDelivered):
    """The PACS has not taken the rejection note; it still shows what is rejected."""

    TYPE: ClassVar[str] = "rejection.failed"

    reason: str = Field(min_length=1, max_length=500)


class ReportRequested(Message):
    """A case has all its signatures: render its report and deliver it."""

    TYPE: ClassVar[str] = "report.requested"

    case_id: UUID
    case_version: int = Field(ge=1)


class ReportDelivered(Message):
    """The EHR has taken the report, or it lies in the outbox folder."""

    TYPE: ClassVar[str] = "report.delivered"

    case_id: UUID
    case_version: int = Field(ge=1)
    destination: str = EHR
    outcomes: tuple[ResourceOutcome, ...]


class ReportFailed(ReportDelivered):
    """The EHR has refused the report for good, or could not be reached while we tried."""

    TYPE: ClassVar[str] = "report.failed"

    reason: str = Field(min_length=1, max_length=500)
