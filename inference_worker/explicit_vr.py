"""Part 10 files of the objects that we make, in Explicit VR Little Endian (PS3.5 §7.1.2, §A.2).

A report has some three hundred elements; pydicom's writer takes longer for them than all else that
is done to make it. This one knows the value representations that our objects have, and writes the
very bytes that pydicom would.
"""

import struct
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRLittleEndian

_ASCII = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
_UNICODE = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_LONG_LENGTH = frozenset({"OB", "SQ", "UC", "UT"})
_PREAMBLE = b"\0" * 128 + b"DICM"
_FILE_META_INFORMATION_GROUP_LENGTH = b"\x02\0\0\0UL\x04\0"
_ITEM = b"\xfe\xff\0\xe0"
_SHORT, _LONG = struct.Struct("<H"), struct.Struct("<2xI")


def part10_of(made: Dataset) -> bytes:
    """Return a Part 10 file of a data set in ISO_IR 192, its File Meta Information complete.

    Raises
    ------
    ValueError
        It is to be in another transfer syntax or character set.
    """
    meta = made.file_meta
    written = (meta.TransferSyntaxUID, made.SpecificCharacterSet)
    if written != (ExplicitVRLittleEndian, "ISO_IR 192"):
        raise ValueError("only Explicit VR Little Endian and ISO_IR 192 are written")
    return part10_file(elements_of(meta), elements_of(made))


def part10_file(meta: Mapping[int, bytes], data_set: Mapping[int, bytes]) -> bytes:
    """Return a Part 10 file of encoded elements, the length of group 0002 put before them."""
    group_2 = _in_order(meta)
    head = (_PREAMBLE, _FILE_META_INFORMATION_GROUP_LENGTH, struct.pack("<I", len(group_2)))
    # Joined at once: pixels are not copied more often than need be.
    return b"".join((*head, group_2, *(data_set[tag] for tag in sorted(data_set))))


def element(tag: int, vr: str, value: object) -> bytes:
    """Return an element of one of the value representations that our objects have."""
    if vr in _ASCII or vr in _UNICODE:
        return _with_header(tag, vr, _text(value, vr))
    if vr == "FD":
        return _with_header(tag, vr, struct.pack("<d", value))
    if vr == "US":
        return _with_header(tag, vr, struct.pack("<H", value))
    if vr == "OB" and isinstance(value, bytes | memoryview):
        return _with_header(tag, vr, value, b"\0" * (len(value) % 2))
    raise ValueError(f"no element of VR {vr} is written here")


def elements(**values: Any) -> dict[int, bytes]:
    """Return elements by their tags; a sequence is given as what `item` returned."""
    found = {}
    for keyword, value in values.items():
        tag, vr = _tag_and_vr(keyword)
        found[tag] = sequence(tag, value) if vr == "SQ" else element(tag, vr, value)
    return found


def elements_of(dataset: Dataset) -> dict[int, bytes]:
    """Return the elements of a data set in ISO_IR 192 by their tags."""
    return {int(each.tag): _element(each) for each in dataset}


def sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """Return a sequence of what `item` returned."""
    return _with_header(tag, "SQ", b"".join(items))


def item(content: bytes) -> bytes:
    """Return an item of a sequence; ``content`` are its elements, in the order of their tags."""
    return _ITEM + struct.pack("<I", len(content)) + content


def item_of(by_tag: Mapping[int, bytes]) -> bytes:
    """Return an item of elements by their tags."""
    return item(_in_order(by_tag))


def _in_order(by_tag: Mapping[int, bytes]) -> bytes:
    return b"".join(by_tag[tag] for tag in sorted(by_tag))


@cache
def _tag_and_vr(keyword: str) -> tuple[int, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no keyword")
    vr = dictionary_VR(tag)
    # Pixels of 8 bits (PS3.5 §8.1.2).
    return tag, "OB" if vr == "OB or OW" else vr


def _data_set(dataset: Dataset) -> bytes:
    return b"".join(_element(dataset[tag]) for tag in sorted(dataset.keys()))


def _element(found: DataElement) -> bytes:
    vr = str(found.VR)
    if vr == "SQ":
        value = b"".join(item(_data_set(each)) for each in found.value or ())
    elif vr in _ASCII or vr in _UNICODE:
        value = _text(found.value, vr)
    elif vr == "OB" and isinstance(found.value, bytes):
        return _with_header(found.tag, vr, found.value, b"\0" * (len(found.value) % 2))
    elif vr == "US" and isinstance(found.value, int):
        value = struct.pack("<H", found.value)
    else:
        return _as_pydicom_does(found)
    return _with_header(found.tag, vr, value)


def _with_header(tag: int, vr: str, value: bytes | memoryview, padding: bytes = b"") -> bytes:
    length = (_LONG if vr in _LONG_LENGTH else _SHORT).pack(len(value) + len(padding))
    return b"".join((_tag_and_vr_encoded(tag, vr), length, value, padding))


@lru_cache(maxsize=1024)
def _tag_and_vr_encoded(tag: int, vr: str) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()


def _text(value: object, vr: str) -> bytes:
    if isinstance(value, str):
        # Most are, and to ask whether something is a sequence takes long.
        text = str(value)
    elif isinstance(value, MultiValue | list):
        text = "\\".join("" if each is None else _as_text(each, vr) for each in value)
    else:
        text = "" if value is None else _as_text(value, vr)
    encoded = text.encode("utf-8" if vr in _UNICODE else "ascii")
    return encoded + (b"\0" if vr == "UI" else b" ") * (len(encoded) % 2)


def _as_text(value: object, vr: str) -> str:
    if vr in {"DS", "IS"}:
        # Numbers keep the digits that they were given as.
        return str(getattr(value, "original_string", value))
    return str(value)


def _as_pydicom_does(element: DataElement) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_data_element(buffer, element, ["utf8"])
    return bytes(buffer.getvalue())
