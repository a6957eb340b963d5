"""The DICOM JSON Model (PS3.18 Annex F): attributes that we make, and data sets that we have."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from imaging_pixels.byte_order import from_big_endian

Attribute = dict[str, Any]
Json = dict[str, Attribute]
"""A data set: attributes by tag, eight upper-case hexadecimal digits."""

Path = tuple[int, ...]
"""Where an element stands: tags, and the numbers of the items between them."""

_BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW"}
_NUMBERS = {"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV", "US or SS"}
_INLINE_BYTES = 256
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_PIXEL_DATA = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_SPECIFIC_CHARACTER_SET = 0x00080005
_UTF_8 = {"vr": "CS", "Value": ["ISO_IR 192"]}


def attribute(vr: str, *values: Any) -> Attribute:
    """Return an attribute; without a value where all are empty."""
    kept = [value for value in values if value not in (None, "")]
    return {"vr": vr, "Value": kept} if kept else {"vr": vr}


def person_name(text: str) -> Attribute:
    """Return a PN whose component groups are separated by ``=`` (PS3.18 §F.2.2)."""
    groups = zip(_NAME_GROUPS, text.split("="), strict=False)
    name = {group: part for group, part in groups if part.strip("^ ")}
    return {"vr": "PN", "Value": [name]} if name else {"vr": "PN"}


def encoded(datasets: Iterable[Json]) -> bytes:
    """Return data sets as the body of an answer, in UTF-8."""
    return json.dumps(list(datasets), ensure_ascii=False, separators=(",", ":")).encode()


def dataset_json(
    dataset: Dataset, bulk_data_uri: Callable[[Path], str], *, is_big_endian: bool = False
) -> Json:
    """Return a data set in JSON; values that cannot be read are left out.

    Binary values of more than 256 bytes, and pixel data of any length, become a BulkDataURI. Those
    of a data set that is big endian are turned: InlineBinary is little endian (PS3.18 §F.2.7).
    """
    model = _items(dataset, (), _BinaryValues(bulk_data_uri, is_big_endian))
    if f"{_SPECIFIC_CHARACTER_SET:08X}" in model:
        # The text was decoded; JSON is UTF-8.
        model[f"{_SPECIFIC_CHARACTER_SET:08X}"] = dict(_UTF_8)
    return model


@dataclass(frozen=True, slots=True)
class _BinaryValues:
    """What becomes of binary values."""

    uri: Callable[[Path], str]
    is_big_endian: bool

    def attribute(self, element: DataElement, path: Path) -> Attribute:
        vr = "OW" if element.VR == "OB or OW" else str(element.VR)
        if path[-1] in _PIXEL_DATA or len(element.value or b"") > _INLINE_BYTES:
            return {"vr": vr, "BulkDataURI": self.uri(path)}
        if not element.value:
            return {"vr": vr}
        value = bytes(element.value)
        if self.is_big_endian:
            value = from_big_endian(value, vr)
        return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()}


def _items(dataset: Dataset, path: Path, binary: _BinaryValues) -> Json:
    model: Json = {}
    for tag in sorted(dataset.keys()):
        if tag.element == 0:
            # Group lengths are of the encoding.
            continue
        # Whatever a malformed element does to the parser, the others are there.
        with suppress(Exception):
            element = dataset[tag]
            model[f"{int(tag):08X}"] = _attribute(element, (*path, int(tag)), binary)
    return model


def _attribute(element: DataElement, path: Path, binary: _BinaryValues) -> Attribute:
    vr = str(element.VR)
    if vr == "SQ":
        items = [_items(item, (*path, number), binary) for number, item in enumerate(element.value)]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    if vr in _BINARY:
        return binary.attribute(element, path)
    vr = "US" if vr == "US or SS" else vr
    if element.is_empty:
        return {"vr": vr}
    value = element.value
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    plain = [_plain(vr, each) for each in values]
    if all(each is None for each in plain):
        return {"vr": vr}
    return {"vr": vr, "Value": plain}


def _plain(vr: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, PersonName):
        return _name_groups(str(value).split("="))
    if vr == "AT":
        return f"{int(value):08X}"
    if vr == "IS":
        return int(value)
    if vr in _NUMBERS:
        number = float(value) if vr in {"DS", "FD", "FL"} else int(value)
        # JSON has neither infinity nor what is not a number.
        return number if math.isfinite(number) else None
    return str(value)


def _name_groups(groups: Sequence[str]) -> dict[str, str] | None:
    named = zip(_NAME_GROUPS, groups, strict=False)
    return {group: part for group, part in named if part} or None
