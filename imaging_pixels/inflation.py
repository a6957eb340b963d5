"""How large a deflated data set is, before anything takes the memory for it (PS3.5 §A.5)."""

import struct
import zlib

from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging_pixels.image_pixel import UndecodablePixels

MOST_BYTES = 2**30
"""Of one inflated data set: deflation makes a thousand bytes of zeros out of one."""

_PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
_FILE_META_INFORMATION = b"\x02\x00"
_LONG_VRS = (b"OB", b"OW", b"UN", b"UT", b"SQ")
_TRANSFER_SYNTAX_UID = b"\x02\x00\x10\x00"
_CHUNK_BYTES = 2**20


def check_inflated_size(content: bytes) -> None:
    """Look at a Part 10 file; whatever is not deflated passes.

    Raises
    ------
    UndecodablePixels
        Its data set would take more than :data:`MOST_BYTES`, or is not a deflated one.
    """
    transfer_syntax_uid, start = _meta_information(content)
    if transfer_syntax_uid != DeflatedExplicitVRLittleEndian.encode("ascii"):
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size_bytes, rest = 0, memoryview(content)[start:]
    try:
        while rest and not inflater.eof:
            size_bytes += len(inflater.decompress(rest[:_CHUNK_BYTES], _CHUNK_BYTES))
            rest = rest[min(len(rest), _CHUNK_BYTES) - len(inflater.unconsumed_tail) :]
            if size_bytes > MOST_BYTES:
                raise UndecodablePixels(
                    f"its data set inflates to more than {MOST_BYTES >> 20} MiB"
                )
    except zlib.error:
        raise UndecodablePixels("its deflated data set is damaged") from None


def _meta_information(content: bytes) -> tuple[bytes, int]:
    """Return the Transfer Syntax UID, empty where there is none, and where the data set starts."""
    at = _PREAMBLE_BYTES + len(_PREFIX)
    if content[_PREAMBLE_BYTES:at] != _PREFIX:
        return b"", 0
    uid = b""
    while content[at : at + 2] == _FILE_META_INFORMATION and at + 12 <= len(content):
        is_long = content[at + 4 : at + 6] in _LONG_VRS
        value = at + (12 if is_long else 8)
        (length,) = struct.unpack_from(
            "<I" if is_long else "<H", content, value - (4 if is_long else 2)
        )
        if content[at : at + 4] == _TRANSFER_SYNTAX_UID:
            uid = content[value : value + length].rstrip(b"\0 ")
        at = value + length
    return uid, at
