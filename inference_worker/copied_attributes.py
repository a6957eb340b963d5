"""What a result object takes over from the instance it was made from, re-encoded and checked.

Text comes out as Unicode whatever the source's Specific Character Set (PS3.5 §6.1). A value that
breaks its VR (PS3.5 §6.2) is left out, because what we write must be valid; only what identifies
the study stays as it came, wrong or not, for without it a PACS would file the result elsewhere.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache

from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

IDENTIFYING = frozenset({"StudyInstanceUID", "PatientID", "AccessionNumber"})
"""Kept as the source has them."""

_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
_TYPE_3 = (
    *("IssuerOfPatientID", "TypeOfPatientID", "PatientBirthTime", "OtherPatientNames"),
    *("EthnicGroup", "PatientAge", "PatientSize", "PatientWeight", "Occupation", "AdmissionID"),
    *("StudyDescription", "PhysiciansOfRecord", "TimezoneOffsetFromUTC"),
)
_MOMENT = ("StudyDate", "StudyTime", "TimezoneOffsetFromUTC")
_ISSUERS = ("IssuerOfAccessionNumberSequence", "IssuerOfPatientIDQualifiersSequence")
_ISSUER_ATTRIBUTES = ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")
_ENUMERATED = {
    "PatientSex": {"M", "F", "O"},
    "TypeOfPatientID": {"TEXT", "RFID", "BARCODE"},
    "UniversalEntityIDType": {"DNS", "EUI64", "ISO", "URI", "UUID", "X400", "X500"},
}
_ALWAYS_ASCII = frozenset({"AS", "CS", "DA", "DS", "TM", "UI"})
_MAY_REPEAT = {"OtherPatientNames", "PhysiciansOfRecord"}
_GREATEST_LENGTH = {"SH": 16, "LO": 64, "DS": 16, "UT": 2**16}
_PATTERNS = {
    "CS": re.compile(r"[A-Z0-9 _]{1,16}"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "UI": re.compile(r"(?=.{1,64}$)[0-2](\.(0|[1-9]\d*))+"),
    "DS": re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([Ee][+-]?\d+)?"),
}
# Alphabetic, ideographic and phonetic; family, given, middle, prefix and suffix (PS3.5 §6.2.1).
_NAME_GROUPS, _NAME_COMPONENTS, _NAME_GROUP_LENGTH = 3, 5, 64
_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")


@dataclass(frozen=True)
class Copied:
    """The attributes that were taken over."""

    attributes: Dataset
    left_out: tuple[str, ...]
    """Keywords of those that break their VR; to be counted, their values to be logged nowhere."""


def copy_patient_and_study(source: Dataset, known_as: Mapping[str, str] | None = None) -> Copied:
    """Return the Patient, General Study and Patient Study attributes of ``source`` (PS3.3 §C.7).

    Type 2 attributes are always there, empty where the source has none. Where instances of the
    study contradict each other, ``known_as`` has the values by keyword that the study is known by:
    then nothing but dates and times is taken of the source, which may be another patient's.
    """
    if known_as is not None:
        source = _as_known(source, known_as)
    taken, left_out = Dataset(), []
    with warnings.catch_warnings():
        # pydicom warns with the value, which belongs in no log.
        warnings.simplefilter("ignore")
        put(taken, "StudyInstanceUID", _values(source, "StudyInstanceUID") or ())
        for keyword in (*_TYPE_2, *_TYPE_3):
            values = _values(source, keyword)
            if values is None or not _is_valid(keyword, values):
                left_out.append(keyword)
                values = ()
            if values or keyword in _TYPE_2:
                put(taken, keyword, values)
        _copy_deidentification(source, taken, left_out)
        for keyword in _ISSUERS:
            _copy_issuer(source, taken, keyword, left_out)
    return Copied(taken, tuple(left_out))


def _as_known(source: Dataset, known_as: Mapping[str, str]) -> Dataset:
    known = Dataset()
    for keyword in ("StudyInstanceUID", *_MOMENT):
        if keyword in source:
            # Else pydicom would convert an empty one, and fail where there is no such VR.
            known[keyword] = source.get_item(keyword, keep_deferred=True)
    for keyword, value in known_as.items():
        put(known, keyword, [value] if value else [])
    return known


def valid_values(source: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of one attribute, none where it is absent, empty or breaks its VR."""
    values = _values(source, keyword)
    fits = values is not None and all(_fits(_tag_and_vr(keyword)[1], value) for value in values)
    return values if values is not None and fits else ()


def time_zone_of(attributes: Dataset) -> tzinfo | None:
    """Return the zone of the times in an object, (0008,0201), or ``None`` where it names none."""
    match = _OFFSET.fullmatch(str(attributes.get("TimezoneOffsetFromUTC", "")))
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-offset if sign == "-" else offset)


def put(target: Dataset, keyword: str, values: Sequence[str]) -> None:
    """Set an attribute from its text values, without judging them."""
    value = list(values) if len(values) > 1 else (values[0] if values else None)
    tag, vr = _tag_and_vr(keyword)
    target[tag] = DataElement(tag, vr, value, validation_mode=config.IGNORE)


@cache
def _tag_and_vr(keyword: str) -> tuple[BaseTag, str]:
    return Tag(keyword), dictionary_VR(keyword)


def _values(source: Dataset, keyword: str) -> tuple[str, ...] | None:
    """Return the values as text, empty ones left out; ``None`` where they cannot be read."""
    # By its tag: to look up a keyword takes longer than to look up an element.
    tag, vr = _tag_and_vr(keyword)
    if tag not in source:
        return ()
    try:
        value = _undeclared_text(source, tag, vr)
        if value is None:
            with warnings.catch_warnings():
                # pydicom warns with the value, which belongs in no log.
                warnings.simplefilter("ignore")
                value = source[tag].value
        items = value if isinstance(value, MultiValue | list) else [value]
        texts = [_trimmed("" if item is None else str(item)) for item in items]
    except Exception:  # noqa: BLE001
        # An element may be broken in as many ways as there are VRs it may claim to have.
        return None
    return tuple(texts) if any(texts) else ()


def _undeclared_text(source: Dataset, tag: BaseTag, vr: str) -> str | list[str] | None:
    """Read text that no character set is declared for: such a VR has none, or the source.

    Outside ASCII, that of a source is read as UTF-8 where it is that.
    """
    raw: object = source.get_item(tag, keep_deferred=True)
    if not isinstance(raw, RawDataElement):
        return None
    # As it stands: to have pydicom make a value of it, and text of that, takes much longer.
    is_plain = vr in _ALWAYS_ASCII and raw.VR in {vr, None}
    if not is_plain and source.get("SpecificCharacterSet"):
        return None
    try:
        text = (raw.value or b"").decode("ascii" if is_plain else "utf-8")
    except UnicodeDecodeError:
        return None
    return text.split("\\") if "\\" in text else text


def _trimmed(text: str) -> str:
    return text.strip(" \0").encode("utf-8", "replace").decode("utf-8")


def _is_valid(keyword: str, values: Sequence[str]) -> bool:
    if keyword in IDENTIFYING:
        return True
    if len(values) > 1 and keyword not in _MAY_REPEAT:
        return False
    allowed = _ENUMERATED.get(keyword)
    if allowed is not None and not allowed.issuperset(values):
        return False
    if keyword == "TimezoneOffsetFromUTC":
        return all(_OFFSET.fullmatch(value) and value != "-0000" for value in values)
    return all(_fits(_tag_and_vr(keyword)[1], value) for value in values)


def _fits(vr: str, value: str) -> bool:
    """Tell whether one value obeys its VR (PS3.5 §6.2)."""
    if not value.isprintable() or "\\" in value or len(value) > _GREATEST_LENGTH.get(vr, 2**16):
        return False
    if vr in _PATTERNS:
        return _PATTERNS[vr].fullmatch(value) is not None
    check = _CHECKS.get(vr)
    return check is None or check(value)


def _is_date(value: str) -> bool:
    return re.fullmatch(r"\d{8}", value) is not None and _is_moment(value, "%Y%m%d")


def _is_time(value: str) -> bool:
    whole = re.fullmatch(r"(\d{2}|\d{4}|\d{6})(\.\d{1,6})?", value)
    if whole is None or ("." in value and value.index(".") != len("HHMMSS")):
        return False
    formats = {2: "%H", 4: "%H%M", 6: "%H%M%S"}
    # A leap second is a second of the Standard, though none of Python's (PS3.5 §6.2, TM).
    digits = value.partition(".")[0]
    return _is_moment(digits[:4] + digits[4:].replace("60", "59"), formats[len(digits)])


def _is_moment(value: str, layout: str) -> bool:
    try:
        datetime.strptime(value, layout).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


def _is_person_name(value: str) -> bool:
    groups = value.split("=")
    return len(groups) <= _NAME_GROUPS and all(
        len(group) <= _NAME_GROUP_LENGTH and group.count("^") < _NAME_COMPONENTS for group in groups
    )


_CHECKS: dict[str, Callable[[str], bool]] = {
    "DA": _is_date,
    "TM": _is_time,
    "PN": _is_person_name,
}


def _copy_deidentification(source: Dataset, taken: Dataset, left_out: list[str]) -> None:
    """Copy Patient Identity Removed with the method that it demands (PS3.3 §C.7.1.1)."""
    removed, method = (
        valid_values(source, keyword)
        for keyword in ("PatientIdentityRemoved", "DeidentificationMethod")
    )
    if removed == ("NO",):
        put(taken, "PatientIdentityRemoved", removed)
    elif removed == ("YES",) and method:
        put(taken, "PatientIdentityRemoved", removed)
        put(taken, "DeidentificationMethod", method)
    elif removed:
        left_out.append("PatientIdentityRemoved")


def _items(source: Dataset, keyword: str) -> Sequence[Dataset] | None:
    """Return the items of a sequence; ``None`` where it is none, or cannot be read."""
    try:
        items = source.get(keyword) or []
    except Exception:  # noqa: BLE001
        return None
    return items if all(isinstance(item, Dataset) for item in items) else None


def _copy_issuer(source: Dataset, taken: Dataset, keyword: str, left_out: list[str]) -> None:
    """Copy who issued an identifier, where the source says it by PS3.3 §10.14."""
    items = _items(source, keyword)
    if items is None:
        left_out.append(keyword)
        return
    if len(items) != 1:
        return
    issuer = Dataset()
    for attribute in _ISSUER_ATTRIBUTES:
        values = valid_values(items[0], attribute)
        if values and _is_valid(attribute, values):
            put(issuer, attribute, values)
    universal = {"UniversalEntityID", "UniversalEntityIDType"}
    present = {attribute for attribute in _ISSUER_ATTRIBUTES if attribute in issuer}
    if not present or len(present & universal) == 1:
        left_out.append(keyword)
        return
    setattr(taken, keyword, [issuer])
