"""File Meta Information (PS3.10 §7.1): what is in a file, and where its data set begins.

The one reader of it for all services. What is read may be ours or anybody's, and may still be on
its way.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

_PREAMBLE_BYTES = 132
_LONGEST_BYTES = 64 * 1024
_META_GROUP = 2
_MOST_FILES_BYTES = 1024
_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT"}
_GROUP_LENGTH, _SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x0000, 0x0002, 0x0003, 0x0010
_SOURCE_AE_TITLE = 0x0016
_UID_LENGTH, _AE_TITLE_LENGTH = 64, 16


class NotPart10(ValueError):
    """It is no DICOM file; the text says what is missing and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What stands before the data set. What is absent is empty."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    """Of preamble and File Meta Information: the data set begins there."""
    source_ae_title: str = ""
    """Of whom it came from (0002,0016), where that is told."""


def parse_file_meta(head: bytes, *, whole: bool = False) -> FileMeta | None:
    """Read the beginning of a file; ``None`` where more of it is needed.

    A group length that is wrong is passed over. ``whole`` says that no more will come.

    Raises
    ------
    NotPart10
        It does not begin as PS3.10 says, or its File Meta Information has no end.
    """
    if len(head) < _PREAMBLE_BYTES and not whole:
        return None
    if head[_PREAMBLE_BYTES - 4 : _PREAMBLE_BYTES] != b"DICM":
        raise NotPart10("no DICOM file: its prefix DICM is missing")
    values: dict[int, bytes] = {}
    position, end = _PREAMBLE_BYTES, -1
    while position != end:
        parsed = _element(head, position)
        if parsed is None:
            if not whole and len(head) < _LONGEST_BYTES:
                return None
            if whole and position == len(head):
                break
            raise NotPart10("no DICOM file: its File Meta Information is cut off")
        group, element, value, following = parsed
        if group != _META_GROUP:
            break
        if element == _GROUP_LENGTH and len(value) == struct.calcsize("<L") and any(value):
            end = following + struct.unpack("<L", value)[0]
        values[element] = value
        position = following
    if not values:
        raise NotPart10("no DICOM file: it has no File Meta Information")
    return FileMeta(
        _text(values, _SOP_CLASS, _UID_LENGTH),
        _text(values, _SOP_INSTANCE, _UID_LENGTH),
        _text(values, _TRANSFER_SYNTAX, _UID_LENGTH),
        position,
        _text(values, _SOURCE_AE_TITLE, _AE_TITLE_LENGTH),
    )


def read_file_meta(file: BinaryIO) -> FileMeta:
    """Read the beginning of a file, and go to where its data set begins.

    Raises
    ------
    NotPart10
        As :func:`parse_file_meta`.
    """
    head, more = b"", _MOST_FILES_BYTES
    file.seek(0)
    while True:
        piece = file.read(more)
        head += piece
        meta = parse_file_meta(head, whole=not piece)
        if meta is not None:
            file.seek(meta.size_bytes)
            return meta
        more = _LONGEST_BYTES


def _element(head: bytes, position: int) -> tuple[int, int, bytes, int] | None:
    """Return group, element, value and what follows; ``None`` where it is not all there."""
    if len(head) < position + 8:
        return None
    group, element, vr, length = struct.unpack_from("<HH2sH", head, position)
    start = position + 8
    if group != _META_GROUP:
        return group, element, b"", position
    if vr in _LONG_VRS:
        if len(head) < position + 12:
            return None
        (length,) = struct.unpack_from("<L", head, position + 8)
        start = position + 12
    if length > _LONGEST_BYTES:
        raise NotPart10("no DICOM file: its File Meta Information has no end")
    if len(head) < start + length:
        return None
    return group, element, head[start : start + length], start + length


def _text(values: dict[int, bytes], element: int, length: int) -> str:
    """Return a UID or a title, or nothing where it is absent or none could be meant by it."""
    value = values.get(element, b"").decode("ascii", "replace").strip(" \0")
    return value if len(value) <= length and value.isascii() and value.isprintable() else ""
