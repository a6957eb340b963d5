"""How large a deflated data set is, before anything takes the memory for it (PS3.5 §A.5)."""

import zlib

from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging_pixels.file_meta import NotPart10, parse_file_meta
from imaging_pixels.image_pixel import UndecodablePixels

MOST_BYTES = 2**30
"""Of one inflated data set: deflation makes a thousand bytes of zeros out of one."""

_META_GROUP = b"\x02\x00"
_PREFIX_AND_GROUP = b"DICM" + _META_GROUP
_PREAMBLE_BYTES = 128
_CHUNK_BYTES = 2**20


def check_inflated_size(content: bytes, most_bytes: int | None = None) -> int:
    """Look at a Part 10 file; return the bytes that its data set inflates to.

    Whatever is not deflated passes, and is told as 0: it takes no more than it has.

    Raises
    ------
    UndecodablePixels
        Its data set would take more than ``most_bytes``, by default :data:`MOST_BYTES`, or is not
        a deflated one; or nobody can tell, because its File Meta Information is damaged.
    """
    if not content.startswith(_PREFIX_AND_GROUP, _PREAMBLE_BYTES):
        return 0
    try:
        meta = parse_file_meta(content, whole=True)
    except NotPart10:
        meta = None
    # Where the group goes on behind what its length says, parsers differ in what they take.
    if meta is None or content.startswith(_META_GROUP, meta.size_bytes):
        raise UndecodablePixels("its File Meta Information is damaged")
    if meta.transfer_syntax_uid != DeflatedExplicitVRLittleEndian:
        return 0
    return _inflated_bytes(
        memoryview(content)[meta.size_bytes :], MOST_BYTES if most_bytes is None else most_bytes
    )


def _inflated_bytes(rest: memoryview, most_bytes: int) -> int:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size_bytes = 0
    try:
        while rest and not inflater.eof:
            size_bytes += len(inflater.decompress(rest[:_CHUNK_BYTES], _CHUNK_BYTES))
            rest = rest[min(len(rest), _CHUNK_BYTES) - len(inflater.unconsumed_tail) :]
            if size_bytes > most_bytes:
                raise UndecodablePixels(
                    f"its data set inflates to more than {most_bytes >> 20} MiB"
                )
    except zlib.error:
        raise UndecodablePixels("its deflated data set is damaged") from None
    return size_bytes
