"""What a search asks for (PS3.18 §8.3.4, §10.6): keys, values and the page of results."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum, auto

from pydicom.datadict import keyword_for_tag


class InvalidSearch(ValueError):
    """A parameter cannot be understood; the text names it and quotes no value."""


class Level(Enum):
    """What is searched for."""

    STUDY = auto()
    SERIES = auto()
    INSTANCE = auto()


@dataclass(frozen=True, slots=True)
class Text:
    """Equal, or alike where there are wildcards: ``*`` for any text, ``?`` for a character."""

    pattern: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a list."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """From ``low`` to just before ``end``, as text that sorts; an empty end is open."""

    low: str
    end: str


Match = Text | OneOf | Range

_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_TIME = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{2})(?:\.\d{1,6})?)?)?")
_NAMED = re.compile(r"[A-Za-z0-9.]{1,64}")
_LONGEST_VALUE = 16 * 1024
_NUL = "\0"
"""No text of a PostgreSQL database has it, not even one that is compared."""
_MOST_OF_A_LIST = 1000


class _Kind(Enum):
    TEXT = auto()
    LIST = auto()
    DATE = auto()
    TIME = auto()
    NUMBER = auto()


_STUDY_KEYS = {
    "StudyDate": _Kind.DATE,
    "StudyTime": _Kind.TIME,
    "AccessionNumber": _Kind.TEXT,
    "ModalitiesInStudy": _Kind.LIST,
    "ReferringPhysicianName": _Kind.TEXT,
    "PatientName": _Kind.TEXT,
    "PatientID": _Kind.TEXT,
    "IssuerOfPatientID": _Kind.TEXT,
    "PatientBirthDate": _Kind.TEXT,
    "PatientSex": _Kind.TEXT,
    "StudyInstanceUID": _Kind.LIST,
    "StudyID": _Kind.TEXT,
    "StudyDescription": _Kind.TEXT,
    "InstitutionName": _Kind.TEXT,
}
_SERIES_KEYS = {
    "Modality": _Kind.LIST,
    "SeriesInstanceUID": _Kind.LIST,
    "SeriesNumber": _Kind.NUMBER,
    "SeriesDescription": _Kind.TEXT,
}
_INSTANCE_KEYS = {
    "SOPClassUID": _Kind.LIST,
    "SOPInstanceUID": _Kind.LIST,
    "InstanceNumber": _Kind.NUMBER,
}
KEYS: Mapping[Level, Mapping[str, _Kind]] = {
    Level.STUDY: _STUDY_KEYS,
    Level.SERIES: _STUDY_KEYS | _SERIES_KEYS,
    Level.INSTANCE: _STUDY_KEYS | _SERIES_KEYS | _INSTANCE_KEYS,
}
"""The keys that are matched, by what is searched for."""

LARGEST_PAGE: Mapping[Level, int] = {Level.STUDY: 500, Level.SERIES: 2000, Level.INSTANCE: 5000}
"""No answer has more results, whatever the limit; the offset goes on from there."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search that was understood."""

    level: Level
    matches: Mapping[str, Match] = field(default_factory=dict)
    """By keyword; all of them hold."""
    limit: int = 0
    offset: int = 0
    is_fuzzy: bool = False
    """Semantic matching of names was asked for, which is not done."""


def parse_search(
    level: Level, parameters: Iterable[tuple[str, str]], fixed: Mapping[str, str] | None = None
) -> Search:
    """Read the query parameters of a search; ``fixed`` are the UIDs that the path names.

    Attributes to include are passed over: what is known is always returned.

    Raises
    ------
    InvalidSearch
        A key that is not matched here, a value that is none of its kind, or a key given twice.
    """
    matches: dict[str, Match] = {}
    numbers = {"limit": LARGEST_PAGE[level], "offset": 0}
    is_fuzzy = False
    for name, value in parameters:
        if len(value) > _LONGEST_VALUE:
            raise InvalidSearch(f"{_named(name)}: the value is too long")
        if _NUL in value:
            raise InvalidSearch(f"{_named(name)}: a NUL is in no value")
        if name in numbers:
            numbers[name] = _number(name, value)
        elif name == "fuzzymatching":
            is_fuzzy = value.lower() == "true"
        elif name != "includefield":
            _add_match(matches, level, name, value)
    for keyword, uid in (fixed or {}).items():
        asked = matches.get(keyword)
        is_both = _NUL not in uid and (not isinstance(asked, OneOf) or uid in asked.values)
        matches[keyword] = OneOf((uid,) if is_both else ())
    return Search(
        level, matches, min(numbers["limit"], LARGEST_PAGE[level]), numbers["offset"], is_fuzzy
    )


def _add_match(matches: dict[str, Match], level: Level, name: str, value: str) -> None:
    keyword = _keyword(name)
    kind = KEYS[level].get(keyword)
    if kind is None:
        raise InvalidSearch(f"{_named(name)}: not a key of this search")
    if keyword in matches:
        raise InvalidSearch(f"{keyword}: given twice")
    match = _match(keyword, kind, value)
    if match is not None:
        matches[keyword] = match


def _match(keyword: str, kind: _Kind, value: str) -> Match | None:
    value = value.strip()
    if not value.strip("*"):
        # Universal matching (PS3.4 §C.2.2.2.3).
        return None
    if kind is _Kind.DATE:
        return _dates(keyword, value)
    if kind is _Kind.TIME:
        return _times(keyword, value)
    if kind is _Kind.NUMBER:
        return OneOf((str(_number(keyword, value, signed=True)),))
    if kind is _Kind.LIST:
        values = tuple(part.strip() for part in re.split(r"[,\\]", value) if part.strip())
        if len(values) > _MOST_OF_A_LIST:
            raise InvalidSearch(f"{keyword}: at most {_MOST_OF_A_LIST} values are taken")
        return OneOf(values)
    return Text(value)


def _dates(keyword: str, value: str) -> Range:
    low, high = _ends(value)
    after = ""
    if high:
        try:
            after = (_date(keyword, high) + timedelta(days=1)).isoformat()
        except OverflowError:
            after = ""
    return Range(_date(keyword, low).isoformat() if low else "", after)


def _date(keyword: str, text: str) -> date:
    match = _DATE.fullmatch(text.strip())
    try:
        if match:
            return date(*(int(part) for part in match.groups()))
    except ValueError:
        pass
    raise InvalidSearch(f"{keyword}: YYYYMMDD, or a range of two with - between them, is needed")


def _times(keyword: str, value: str) -> Range:
    """Return a range of ``HH:MM:SS``; what a time leaves open is all of it."""
    low, high = _ends(value)
    return Range(
        ":".join(_time(keyword, low, "00")) if low else "",
        # Behind every fraction of the last second.
        ":".join(_time(keyword, high, "59")) + "~" if high else "",
    )


def _time(keyword: str, text: str, absent: str) -> tuple[str, ...]:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise InvalidSearch(f"{keyword}: HHMMSS, or a range of two with - between them, is needed")
    return tuple(part or absent for part in match.groups())


def _ends(value: str) -> tuple[str, str]:
    low, dash, high = value.partition("-")
    return (low, high) if dash else (value, value)


def _number(name: str, value: str, *, signed: bool = False) -> int:
    if not re.fullmatch(r"[+-]?\d{1,9}" if signed else r"\d{1,9}", value):
        raise InvalidSearch(f"{_named(name)}: a whole number is needed")
    return int(value)


def _keyword(name: str) -> str:
    """Return the keyword of a key that is given by keyword or by tag (PS3.18 §8.3.4)."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return keyword_for_tag(int(name, 16)) or name
    return name


def _named(name: str) -> str:
    """Return a name that may be quoted: what looks like none may be a patient's."""
    return name if _NAMED.fullmatch(name) else "a parameter"
