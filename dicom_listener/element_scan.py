"""The plain elements at the beginning of a data set, read ten times faster than pydicom does.

Only what is beyond doubt: little endian, a length that is defined and ends within the bytes at
hand. At the first element that is anything else the scan ends, and pydicom goes on from there.
"""

import struct
from collections.abc import Container
from typing import NamedTuple

_explicit_at = struct.Struct("<HH2sH").unpack_from
_implicit_at = struct.Struct("<HHL").unpack_from
_length_at = struct.Struct("<L").unpack_from
_HEADER_BYTES = 8
_LONG_HEADER_BYTES = 12
_UNDEFINED = 0xFFFFFFFF
_ITEM_DELIMITATION = 0xFFFEE00D
_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # PS3.5 §7.1.2
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


class Scanned(NamedTuple):
    """What a scan found."""

    values: dict[int, tuple[bytes | None, bytes]]
    """VR (``None`` in Implicit VR) and value of the wanted elements that have one, by tag."""
    length: int
    """How many bytes were scanned."""
    reached_end: bool
    """Whether a tag behind the last wanted one was seen."""


def scan(data: bytes, wanted: Container[int], last_wanted: int, *, is_implicit_vr: bool) -> Scanned:
    """Read the ``wanted`` elements of a little endian data set as far as they are plain."""
    values: dict[int, tuple[bytes | None, bytes]] = {}
    position, size = 0, len(data)
    while position + _LONG_HEADER_BYTES <= size:
        code: bytes | None = None
        start = position + _HEADER_BYTES
        if is_implicit_vr:
            group, element, length = _implicit_at(data, position)
        else:
            group, element, code, length = _explicit_at(data, position)
            if code not in _SHORT_VRS:
                if code not in _LONG_VRS:
                    break
                (length,) = _length_at(data, start)
                start = position + _LONG_HEADER_BYTES
        tag = group << 16 | element
        if tag > last_wanted and tag != _ITEM_DELIMITATION:
            return Scanned(values, position, reached_end=True)
        end = start + length
        if length == _UNDEFINED or end > size or tag == _ITEM_DELIMITATION:
            break
        if length and tag in wanted and tag not in values:
            values[tag] = code, data[start:end]
        position = end
    return Scanned(values, position, reached_end=False)
