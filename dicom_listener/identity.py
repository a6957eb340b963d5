"""Whose an instance is: whether it names the patient that its study is known by (PS3.3 §C.7.1.1).

A patient is (Patient ID, issuer); name and birth date tell a worklist entry that was picked by
mistake. Text has been decoded before, so that another Specific Character Set changes nothing.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple, Self

from dicom_listener.instance_header import InstanceHeader

PATIENT_ID = "PatientID"
ISSUER = "IssuerOfPatientID"
NAME = "PatientName"
BIRTH_DATE = "PatientBirthDate"
KEYWORDS = (PATIENT_ID, ISSUER, NAME, BIRTH_DATE)

_DATE = re.compile(r"(\d{4})[.:/-]?(\d{2})[.:/-]?(\d{2})")
_ID_LENGTH, _NAME_LENGTH, _DATE_LENGTH = 64, 400, 8
_FAMILY_AND_GIVEN = 2


class Identity(NamedTuple):
    """What says whose an instance is. What is absent is empty; the issuer is after defaults."""

    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str

    def values(self) -> dict[str, str]:
        """Return the values by keyword."""
        return dict(zip(KEYWORDS, self, strict=True))

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Self:
        """Return what `values` has written down."""
        return cls(*(values.get(keyword, "") for keyword in KEYWORDS))


def identity_of(header: InstanceHeader, issuer_of_patient_id: str) -> Identity:
    """Return whose an instance is, as a study is known: no longer than the index has room for.

    ``issuer_of_patient_id`` is the instance's own, or else its sender's or the site's.
    """
    shared = header.shared
    return _clipped(
        shared.patient_id, issuer_of_patient_id, shared.patient_name, shared.patient_birth_date
    )


@lru_cache(maxsize=1024)
def _clipped(patient_id: str, issuer: str, patient_name: str, patient_birth_date: str) -> Identity:
    return Identity(
        patient_id[:_ID_LENGTH],
        issuer[:_ID_LENGTH],
        patient_name[:_NAME_LENGTH],
        birth_date(patient_birth_date)[:_DATE_LENGTH],
    )


def birth_date(text: str) -> str:
    """Return a DA as PS3.5 §6.2 has it now, where ACR-NEMA's had points; else as it came.

    A date of zeros is how some systems write that they know none.
    """
    plain = text.strip()
    if not plain.isalnum() and (match := _DATE.fullmatch(plain)):
        plain = "".join(match.groups())
    return plain if plain.strip("0") else ""


@lru_cache(maxsize=1024)
def differing(known: Identity, claimed: Identity) -> tuple[str, ...]:
    """Return the keywords in which an instance disagrees with what its study is known by.

    A Patient ID has to be there and to be equal to the last letter: it is a key, not a text.
    Issuer, name and birth date disagree only where both are there.
    """
    return tuple(
        keyword
        for keyword, disagrees in (
            (PATIENT_ID, not claimed.patient_id or known.patient_id != claimed.patient_id),
            (ISSUER, _both_differ(known.issuer_of_patient_id, claimed.issuer_of_patient_id)),
            (NAME, _names_differ(known.patient_name, claimed.patient_name)),
            (
                BIRTH_DATE,
                _both_differ(birth_date(known.patient_birth_date), claimed.patient_birth_date),
            ),
        )
        if disagrees
    )


def claim_the_same(one: Identity, other: Identity) -> bool:
    """Whether two instances that disagree with their study name the same patient, or both none."""
    if one.patient_id != other.patient_id:
        return False
    return not set(differing(one, other)) - {PATIENT_ID}


def completed(known: Identity, claimed: Identity) -> Identity:
    """Return what a study is known by, with what an agreeing instance adds to it."""
    return Identity(*(old or new for old, new in zip(known, claimed, strict=True)))


def _both_differ(one: str, other: str) -> bool:
    return bool(one and other) and one != other


def _names_differ(known: str, claimed: str) -> bool:
    """Compare each component group that both names have (PS3.5 §6.2.1).

    The ideographic and the phonetic group are often added or dropped on the way.
    """
    return any(
        _groups_differ(one, other)
        for one, other in zip(_groups(known), _groups(claimed), strict=False)
        if one and other
    )


def _groups(name: str) -> list[tuple[str, ...]]:
    return [_components(group) for group in name.split("=")]


def _components(group: str) -> tuple[str, ...]:
    """Return the components of a group, in the one form that all their spellings have.

    Case means nothing (PS3.4 §C.2.2.2.1 lets matching ignore it), nor do runs of spaces, nor
    whether katakana and Latin letters are wide or narrow: ISO-IR 13 only has narrow katakana.
    """
    plain = unicodedata.normalize("NFKC", group).casefold()
    components = [" ".join(component.split()) for component in plain.split("^")]
    while components and not components[-1]:
        components.pop()
    return tuple(components)


def _groups_differ(known: tuple[str, ...], claimed: tuple[str, ...]) -> bool:
    """Compare family and given name; the others, such as a degree, only where both have them."""
    return any(
        one != other and (number < _FAMILY_AND_GIVEN or bool(one and other))
        for number, (one, other) in enumerate(zip_longest(known, claimed, fillvalue=""))
    )
