"""File Meta Information of our own before a data set that is kept as it came (PS3.10 §7.1)."""

import struct
from functools import lru_cache

from message_contracts.identifiers import derived_uid

IMPLEMENTATION_CLASS_UID = derived_uid("implementation", "dicom_listener")
IMPLEMENTATION_VERSION_NAME = "COUNTERSIGN_0_1"

_PREAMBLE = bytes(128) + b"DICM"


def file_meta(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str
) -> bytes:
    """Return preamble, prefix and File Meta Information of a Part 10 file."""
    before, after = _of_association(sop_class_uid, transfer_syntax_uid, source_ae_title)
    group = before + _element(0x0003, b"UI", _uid(sop_instance_uid)) + after
    return _PREAMBLE + _element(0x0000, b"UL", struct.pack("<L", len(group))) + group


@lru_cache(maxsize=256)
def _of_association(
    sop_class_uid: str, transfer_syntax_uid: str, source_ae_title: str
) -> tuple[bytes, bytes]:
    """Return the elements before and after the SOP Instance UID."""
    before = _element(0x0001, b"OB", b"\0\1") + _element(0x0002, b"UI", _uid(sop_class_uid))
    after = (
        _element(0x0010, b"UI", _uid(transfer_syntax_uid))
        + _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID))
        + _element(0x0013, b"SH", _text(IMPLEMENTATION_VERSION_NAME))
    )
    if source_ae_title:
        after += _element(0x0016, b"AE", _text(source_ae_title))
    return before, after


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """Encode one element in Explicit VR Little Endian (PS3.5 §7.1.2)."""
    if vr == b"OB":
        return struct.pack("<HH2s2xL", 2, element, vr, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _uid(value: str) -> bytes:
    data = value.encode("ascii", "replace")
    return data + b"\0" * (len(data) % 2)


def _text(value: str) -> bytes:
    data = value.encode("ascii", "replace")
    return data + b" " * (len(data) % 2)
