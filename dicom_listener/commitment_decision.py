"""Which instances we commit to, which we do not and why (PS3.4 §J.3). Pure."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from dicom_listener.sop_classes import is_storage
from message_contracts.identifiers import derived_id, is_uid

SUCCESSFUL, FAILURES_EXIST = 1, 2
"""Event Type IDs (PS3.4 §J.3.3.1)."""


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of PS3.3 §C.14.1.1, as far as we give it."""

    PROCESSING_FAILURE = 0x0110
    """Whether its bytes are there could not be found out."""
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    """It is not in the index, or its bytes are not kept any more."""
    CLASS_INSTANCE_CONFLICT = 0x0119
    """It is kept, and of another SOP Class."""
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    """Its SOP Class is none of Storage."""
    DUPLICATE_TRANSACTION_UID = 0x0131
    """The AE has used the Transaction UID for other instances."""


class MalformedRequest(ValueError):
    """The Action Information breaks PS3.4 Table J.3-1; the text names the attribute."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance that we are to commit to."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """What an AE asks us to commit to."""

    calling_ae_title: str
    transaction_uid: str
    references: tuple[Reference, ...]
    """Each instance once, in the order in which they were named."""

    @property
    def id(self) -> UUID:
        """The same for the same request made again."""
        lines = sorted(f"{each.sop_class_uid} {each.sop_instance_uid}" for each in self.references)
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return derived_id("commitment", self.calling_ae_title, self.transaction_uid, digest)


@dataclass(frozen=True, slots=True)
class Indexed:
    """What the index knows of an instance."""

    sop_class_uid: str
    is_purged: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """One instance, and why we do not commit to it; ``None`` where we do."""

    reference: Reference
    failure_reason: FailureReason | None


def request_of(calling_ae_title: str, action_information: Dataset) -> CommitmentRequest:
    """Read the Action Information of an N-ACTION.

    Raises
    ------
    MalformedRequest
        The Transaction UID or a reference is absent or no UID.
    """
    transaction_uid = _uid(action_information, "TransactionUID")
    references: dict[str, Reference] = {}
    items = action_information.get("ReferencedSOPSequence")
    if not isinstance(items, DicomSequence) or not items:
        raise MalformedRequest("Referenced SOP Sequence (0008,1199) is absent or empty")
    for item in items:
        reference = Reference(
            _uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID")
        )
        known = references.setdefault(reference.sop_instance_uid, reference)
        if known != reference:
            raise MalformedRequest("Referenced SOP Sequence names an instance with two classes")
    return CommitmentRequest(calling_ae_title, transaction_uid, tuple(references.values()))


def decide(
    references: Iterable[Reference],
    index: Mapping[str, Indexed],
    bytes_there: Mapping[str, bool | None],
) -> tuple[Decided, ...]:
    """Decide about each reference.

    ``bytes_there`` tells of SOP Instance UIDs whether their files are there; ``None``: it could
    not be found out.
    """
    return tuple(Decided(each, _failure(each, index, bytes_there)) for each in references)


def _failure(
    reference: Reference, index: Mapping[str, Indexed], bytes_there: Mapping[str, bool | None]
) -> FailureReason | None:
    found = index.get(reference.sop_instance_uid)
    if found is None or found.is_purged:
        if found is None and not is_storage(reference.sop_class_uid):
            return FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    if found.sop_class_uid != reference.sop_class_uid:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    there = bytes_there.get(reference.sop_instance_uid, False)
    if there is None:
        return FailureReason.PROCESSING_FAILURE
    return None if there else FailureReason.NO_SUCH_OBJECT_INSTANCE


def event_of(transaction_uid: str, decided: Sequence[Decided]) -> tuple[int, Dataset]:
    """Return Event Type ID and Event Information that tell the result (PS3.4 Table J.3-2)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    kept = [_item(each.reference) for each in decided if each.failure_reason is None]
    failed = []
    for each in decided:
        if each.failure_reason is not None:
            item = _item(each.reference)
            item.FailureReason = int(each.failure_reason)
            failed.append(item)
    if kept:
        information.ReferencedSOPSequence = kept
    if failed:
        information.FailedSOPSequence = failed
    return (FAILURES_EXIST if failed else SUCCESSFUL), information


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _uid(ds: Dataset, keyword: str) -> str:
    value = str(ds.get(keyword) or "").strip(" \0")
    if not is_uid(value):
        raise MalformedRequest(f"{keyword} is absent or no UID")
    return value
