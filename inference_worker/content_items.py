"""Content items of a Structured Report (PS3.3 §C.17.3), encoded as they are made.

They are what a report mostly consists of. Made as pydicom's data sets, and checked by highdicom's
classes, a small report takes twenty milliseconds; the tests hold these to be the same bytes.
"""

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from inference_worker.explicit_vr import element, elements, item, item_of, sequence
from message_contracts.coding import CodedConcept

_REFERENCED_SOP_SEQUENCE = 0x00081199
_RELATIONSHIP_TYPE = 0x0040A010
_VALUE_TYPE = 0x0040A040
_CONCEPT_NAME_CODE_SEQUENCE = 0x0040A043
_CONTINUITY_OF_CONTENT = 0x0040A050
_UID = 0x0040A124
_TEXT_VALUE = 0x0040A160
_FLOATING_POINT_VALUE = 0x0040A161
_CONCEPT_CODE_SEQUENCE = 0x0040A168
_MEASURED_VALUE_SEQUENCE = 0x0040A300
_MEASUREMENT_UNITS_CODE_SEQUENCE = 0x004008EA
_NUMERIC_VALUE = 0x0040A30A
_CONTENT_TEMPLATE_SEQUENCE = 0x0040A504
_CONTENT_SEQUENCE = 0x0040A730

MOST_FRAMES = 5000
"""That one IMAGE item names: a value of VR IS is at most 65,534 bytes, 13 for each number."""


class Relationship(StrEnum):
    """How a content item relates to the one that it is part of (PS3.3 §C.17.3.2.4)."""

    CONTAINS = "CONTAINS"
    HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
    HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
    INFERRED_FROM = "INFERRED FROM"


def code(relationship: Relationship, name: CodedConcept, value: CodedConcept) -> bytes:
    """Return a CODE item."""
    return _item(relationship, "CODE", name, _code_sequence(_CONCEPT_CODE_SEQUENCE, value))


def text(relationship: Relationship, name: CodedConcept, value: str) -> bytes:
    """Return a TEXT item."""
    return _item(relationship, "TEXT", name, element(_TEXT_VALUE, "UT", value))


def uid_reference(relationship: Relationship, name: CodedConcept, value: str) -> bytes:
    """Return a UIDREF item."""
    return _item(relationship, "UIDREF", name, element(_UID, "UI", value))


def number(
    name: CodedConcept, value: float, units: CodedConcept, children: Sequence[bytes]
) -> bytes:
    """Return a NUM item that a container contains; ``value`` has at most 16 characters."""
    measured = (
        _code_sequence(_MEASUREMENT_UNITS_CODE_SEQUENCE, units)
        + element(_FLOATING_POINT_VALUE, "FD", value)
        + element(_NUMERIC_VALUE, "DS", value)
    )
    return _item(
        Relationship.CONTAINS,
        "NUM",
        name,
        sequence(_MEASURED_VALUE_SEQUENCE, [item(measured)]) + _content(children),
    )


def image(
    relationship: Relationship,
    name: CodedConcept,
    referenced: tuple[str, str],
    frames: Sequence[int] = (),
) -> bytes:
    """Return an IMAGE item of a SOP Class UID and SOP Instance UID.

    ``frames``, from 1 and at most `MOST_FRAMES`, are those that it is about; none: it is about all.
    """
    reference = element(0x00081150, "UI", referenced[0]) + element(0x00081155, "UI", referenced[1])
    if frames:
        reference += element(0x00081160, "IS", list(frames))
    return item(
        sequence(_REFERENCED_SOP_SEQUENCE, [item(reference)]) + _head(relationship, "IMAGE", name)
    )


def container(name: CodedConcept, children: Sequence[bytes], template: str | None = None) -> bytes:
    """Return a CONTAINER item that another contains."""
    relationship = element(_RELATIONSHIP_TYPE, "CS", Relationship.CONTAINS)
    return item(relationship + b"".join(root(name, children, template).values()))


def root(
    name: CodedConcept, children: Sequence[bytes], template: str | None = None
) -> dict[int, bytes]:
    """Return the elements of the root content item, by their tags in order."""
    found = {
        _VALUE_TYPE: element(_VALUE_TYPE, "CS", "CONTAINER"),
        _CONCEPT_NAME_CODE_SEQUENCE: _code_sequence(_CONCEPT_NAME_CODE_SEQUENCE, name),
        # Else a reader may leave out what a number is, and show its digits alone: DCMTK does.
        _CONTINUITY_OF_CONTENT: element(_CONTINUITY_OF_CONTENT, "CS", "SEPARATE"),
    }
    if template is not None:
        identified = element(0x00080105, "CS", "DCMR") + element(0x0040DB00, "CS", template)
        found[_CONTENT_TEMPLATE_SEQUENCE] = sequence(_CONTENT_TEMPLATE_SEQUENCE, [item(identified)])
    return found | {_CONTENT_SEQUENCE: _content(children)}


def _item(relationship: Relationship, value_type: str, name: CodedConcept, value: bytes) -> bytes:
    return item(_head(relationship, value_type, name) + value)


@lru_cache(maxsize=256)
def _head(relationship: Relationship, value_type: str, name: CodedConcept) -> bytes:
    return (
        element(_RELATIONSHIP_TYPE, "CS", relationship)
        + element(_VALUE_TYPE, "CS", value_type)
        + _code_sequence(_CONCEPT_NAME_CODE_SEQUENCE, name)
    )


@lru_cache(maxsize=1024)
def coded(concept: CodedConcept) -> bytes:
    """Return a code sequence item (PS3.3 §8.8)."""
    return item_of(
        elements(
            CodeValue=concept.value,
            CodingSchemeDesignator=concept.scheme_designator,
            CodeMeaning=concept.meaning,
        )
    )


def _code_sequence(tag: int, concept: CodedConcept) -> bytes:
    return sequence(tag, [coded(concept)])


def _content(children: Sequence[bytes]) -> bytes:
    return sequence(_CONTENT_SEQUENCE, children) if children else b""
