"""Compares an instance that came again with what the index remembers of the first.

For a first whose bytes were let go of: its pixels, and all that the index does not keep, cannot be
compared any more.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from dicom_listener.arrival import Arrival, study_attributes
from dicom_listener.differences import Difference, Kind
from dicom_listener.identity import Identity, differing, identity_of

_DATE_LENGTH, _TIME_ENDS_AT = len("2026-07-04"), len("2026-07-04T12:00:00")
_OF_STUDY = {
    "PatientSex": "patient_sex",
    "AccessionNumber": "accession_number",
    "StudyID": "study_id",
    "StudyDescription": "study_description",
    "ReferringPhysicianName": "referring_physician_name",
}
_OF_INSTANCE = {
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "NumberOfFrames": "number_of_frames",
    "Rows": "rows",
    "Columns": "columns",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """What differs, and what either says of patient and order, by keyword."""

    difference: Difference
    known: dict[str, str]
    claimed: dict[str, str]


def compare_with_index(study: Row[Any], first: Row[Any], newcomer: Arrival) -> Compared:
    """Compare a newcomer with the rows of a study and of the instance that came first.

    Of patient and order the index knows what the study is known by. What the first may have said
    otherwise than its study is taken for an update too: a person sees both.
    """
    header = newcomer.header.shared
    content = [
        keyword
        for keyword, name in _OF_INSTANCE.items()
        if (known := getattr(first, name)) is not None and known != getattr(header, name)
    ]
    before = _of_order(study._asdict())
    now = _of_order(study_attributes(newcomer))
    of_study, claimed = (
        known_identity(study),
        identity_of(newcomer.header, header.issuer_of_patient_id),
    )
    keywords = [
        *differing(of_study, claimed),
        *(keyword for keyword in now if before[keyword] != now[keyword]),
    ]
    return Compared(
        Difference(_kind(content, keywords), (*content, *keywords)),
        of_study.values() | {each: before[each] for each in before if each in keywords},
        claimed.values() | {each: now[each] for each in now if each in keywords},
    )


def known_identity(study: Row[Any]) -> Identity:
    """Return whom a study is known to be of."""
    return Identity(
        study.patient_id,
        study.issuer_of_patient_id,
        study.patient_name,
        study.patient_birth_date,
    )


def _kind(content: list[str], keywords: list[str]) -> Kind:
    if content:
        return Kind.CONTENT
    return Kind.ATTRIBUTES if keywords else Kind.UNCOMPARED


def _of_order(attributes: Any) -> dict[str, str]:
    texts = {keyword: str(attributes[name]).strip() for keyword, name in _OF_STUDY.items()}
    started = str(attributes["started"])
    # Without the offset: the zone that it was taken from may have been set anew since.
    return texts | {
        "StudyDate": started[:_DATE_LENGTH],
        "StudyTime": started[_DATE_LENGTH + 1 : _TIME_ENDS_AT],
    }
