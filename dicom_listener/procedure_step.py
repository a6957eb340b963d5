"""What a Modality Performed Procedure Step says of its studies (PS3.3 §C.4.13 to §C.4.15). Pure.

Reading is tolerant: what is malformed is taken as absent, except what the step is about.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_listener.normalized import (
    INVALID_ATTRIBUTE_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_ATTRIBUTE_VALUE,
)
from message_contracts.identifiers import is_uid
from service_runtime.errors import PermanentError

SOP_CLASS_UID = "1.2.840.10008.3.1.2.3.3"

_WRONG_WORKLIST_ENTRY = "110514"
_LISTS = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")


class StepStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class InvalidStep(PermanentError):
    """A request is refused: ``status`` is of PS3.7 Annex C, the text names the attribute."""

    def __init__(self, status: int, fault: str) -> None:
        super().__init__(fault)
        self.status = status


@dataclass(frozen=True, slots=True)
class ProcedureStep:
    """A step, as far as its modality has said."""

    status: StepStatus
    study_instance_uids: tuple[str, ...]
    sop_instance_uids: tuple[str, ...] = ()
    """Of every instance that its series list, images and others."""
    discontinuation_reason_code: str = ""

    @property
    def is_of_wrong_entry(self) -> bool:
        """Whether it was ended because it is another patient's or another order's."""
        return (
            self.status is StepStatus.DISCONTINUED
            and self.discontinuation_reason_code == _WRONG_WORKLIST_ENTRY
        )


def created(attributes: Dataset) -> ProcedureStep:
    """Return the step that an N-CREATE makes (PS3.4 §F.7.2.1).

    Raises
    ------
    InvalidStep
        It is not IN PROGRESS, or names no study.
    """
    status = _text(attributes, "PerformedProcedureStepStatus")
    if not status:
        raise InvalidStep(
            MISSING_ATTRIBUTE_VALUE
            if "PerformedProcedureStepStatus" in attributes
            else MISSING_ATTRIBUTE,
            "Performed Procedure Step Status is missing",
        )
    if status != StepStatus.IN_PROGRESS:
        raise InvalidStep(
            INVALID_ATTRIBUTE_VALUE, "Performed Procedure Step Status must be IN PROGRESS"
        )
    if "ScheduledStepAttributesSequence" not in attributes:
        raise InvalidStep(MISSING_ATTRIBUTE, "Scheduled Step Attributes Sequence is missing")
    studies = _uids(_items(attributes, "ScheduledStepAttributesSequence"), "StudyInstanceUID")
    if not studies:
        raise InvalidStep(MISSING_ATTRIBUTE_VALUE, "Study Instance UID is missing")
    step = ProcedureStep(StepStatus.IN_PROGRESS, studies)
    return replace(step, sop_instance_uids=_listed(attributes))


@dataclass(frozen=True, slots=True)
class Modification:
    """What an N-SET says of a step; ``None`` where it says nothing."""

    status: StepStatus | None
    sop_instance_uids: tuple[str, ...] | None
    discontinuation_reason_code: str | None

    def of(self, step: ProcedureStep) -> ProcedureStep:
        """Return a step IN PROGRESS as this leaves it.

        A sequence that is set takes the place of what was there (PS3.4 §F.7.2.2). Of which studies
        a step is does not change.
        """
        return replace(
            step,
            status=self.status or step.status,
            sop_instance_uids=step.sop_instance_uids
            if self.sop_instance_uids is None
            else self.sop_instance_uids,
            discontinuation_reason_code=self.discontinuation_reason_code
            or step.discontinuation_reason_code,
        )


def modification(ds: Dataset) -> Modification:
    """Read the Modification List of an N-SET.

    Raises
    ------
    InvalidStep
        The status is none that there is.
    """
    text = _text(ds, "PerformedProcedureStepStatus")
    try:
        status = StepStatus(text) if text else None
    except ValueError:
        raise InvalidStep(
            INVALID_ATTRIBUTE_VALUE, "Performed Procedure Step Status is none of PS3.3 C.4.14"
        ) from None
    reasons = _items(ds, "PerformedProcedureStepDiscontinuationReasonCodeSequence")
    return Modification(
        status=status,
        sop_instance_uids=_listed(ds) if "PerformedSeriesSequence" in ds else None,
        discontinuation_reason_code=_dicom_code(reasons[0]) if reasons else None,
    )


def _listed(ds: Dataset) -> tuple[str, ...]:
    """SOP Instance UIDs of the performed series, each once, in the order given."""
    references = [
        reference
        for series in _items(ds, "PerformedSeriesSequence")
        for keyword in _LISTS
        for reference in _items(series, keyword)
    ]
    return _uids(references, "ReferencedSOPInstanceUID")


def _dicom_code(item: Dataset) -> str:
    """Code value of an item coded in DCM, or in no scheme that it names."""
    if _text(item, "CodingSchemeDesignator") not in {"", "DCM"}:
        return ""
    return _text(item, "CodeValue")[:16]


def _uids(items: list[Dataset], keyword: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_present_uids(items, keyword)))


def _present_uids(items: list[Dataset], keyword: str) -> Iterator[str]:
    for item in items:
        uid = _text(item, keyword)
        if is_uid(uid):
            yield uid


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    try:
        value = ds.get(keyword)
    except Exception:  # noqa: BLE001 - whatever a malformed element does to the parser
        return []
    return list(value) if isinstance(value, Sequence) else []


def _text(ds: Dataset, keyword: str) -> str:
    try:
        value = ds.get(keyword)
    except Exception:  # noqa: BLE001 - whatever a malformed element does to the parser
        return ""
    return value.strip(" \0") if isinstance(value, str) else ""
