"""The compressed bytes of one frame: fragments and offset tables (PS3.5 §A.4)."""

import struct
from collections.abc import Iterator, Sequence

from imaging_pixels.image_pixel import UndecodablePixels

_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_DELIMITATION_ITEM = b"\xfe\xff\xdd\xe0"
_HEADER_BYTES = 8
_LONGEST_START_BYTES = 8
_UNDEFINED_LENGTH = 0xFFFFFFFF
_STARTS_OF_IMAGE = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")
"""Of JPEG and JPEG-LS, of JPEG 2000, and of the file format that must not wrap it but does."""

Fragment = tuple[int, int]
"""Where the item's value starts in the value of Pixel Data, and its length in bytes."""

Content = bytes | memoryview
"""The value of Pixel Data, or a view of a file from there on: what follows its end is not read."""


def coded_frame(
    value: Content,
    frame: int,
    frames: int,
    extended_offsets: tuple[bytes, bytes] | None = None,
) -> bytes:
    """Return the compressed bytes of one frame, counted from 0, and copy no other.

    A frame is found by the Extended Offset Table (PS3.3 §C.7.6.3.1.8), by the Basic Offset Table,
    or where neither leads to fragments, by what the fragments begin with.

    Raises
    ------
    UndecodablePixels
        A fragment is cut off, or the fragments cannot be told apart into as many frames.
    """
    basic_offsets, first = _basic_offset_table(value)
    if extended_offsets is not None:
        found = _by_extended_offsets(value, first, frame, extended_offsets)
        if found is not None:
            return found
    if len(basic_offsets) == frames > 1:
        found = _by_basic_offsets(value, first, frame, basic_offsets)
        if found is not None:
            return found
    fragments = list(_fragments(value, first))
    own = _of_frame(value, fragments, frame, frames)
    return b"".join(value[start : start + length] for start, length in own)


def _basic_offset_table(value: Content) -> tuple[Sequence[int], int]:
    """Return the offsets, and where the first fragment's item starts."""
    if value[:4] != _ITEM or len(value) < _HEADER_BYTES:
        raise UndecodablePixels("the compressed pixel data does not begin with an item")
    (length,) = struct.unpack_from("<I", value, 4)
    end = _HEADER_BYTES + length
    if length % 4 or end > len(value):
        raise UndecodablePixels("the pixel data is truncated: its offset table is cut off")
    return struct.unpack_from(f"<{length // 4}I", value, _HEADER_BYTES), end


def _by_extended_offsets(
    value: Content, first: int, frame: int, tables: tuple[bytes, bytes]
) -> bytes | None:
    offsets, lengths = tables
    place = 8 * frame
    if len(offsets) < place + 8 or len(lengths) < place + 8:
        return None
    (offset,), (length,) = (struct.unpack_from("<Q", table, place) for table in tables)
    start = first + offset
    if value[start : start + 4] != _ITEM or start + _HEADER_BYTES + length > len(value):
        return None
    return bytes(value[start + _HEADER_BYTES : start + _HEADER_BYTES + length])


def _by_basic_offsets(
    value: Content, first: int, frame: int, offsets: Sequence[int]
) -> bytes | None:
    start = first + offsets[frame]
    end = first + offsets[frame + 1] if frame + 1 < len(offsets) else len(value)
    before = first + offsets[frame - 1] if frame else first - 1
    if value[start : start + 4] != _ITEM or not before < start < end <= len(value):
        return None
    parts, at = [], start
    while at < end and value[at : at + 4] == _ITEM:
        begin, length = _fragment(value, at)
        parts.append(value[begin : begin + length])
        at = begin + length
    return b"".join(parts)


def _fragments(value: Content, at: int) -> Iterator[Fragment]:
    while value[at : at + 4] == _ITEM:
        fragment = _fragment(value, at)
        yield fragment
        at = sum(fragment)
    if value[at : at + 4] not in (b"", _SEQUENCE_DELIMITATION_ITEM):
        raise UndecodablePixels("the compressed pixel data has something between its fragments")


def _fragment(value: Content, at: int) -> Fragment:
    if at + _HEADER_BYTES > len(value):
        raise UndecodablePixels("the pixel data is truncated: a fragment is cut off")
    (length,) = struct.unpack_from("<I", value, at + 4)
    if length == _UNDEFINED_LENGTH or at + _HEADER_BYTES + length > len(value):
        raise UndecodablePixels("the pixel data is truncated: a fragment is cut off")
    return at + _HEADER_BYTES, length


def _of_frame(
    value: Content, fragments: Sequence[Fragment], frame: int, frames: int
) -> Sequence[Fragment]:
    if not fragments:
        raise UndecodablePixels("the pixel data is empty")
    if frames == 1:
        return fragments
    if len(fragments) == frames:
        return fragments[frame : frame + 1]
    firsts = [
        number
        for number, (start, _) in enumerate(fragments)
        if bytes(value[start : start + _LONGEST_START_BYTES]).startswith(_STARTS_OF_IMAGE)
    ]
    if len(firsts) < frames or firsts[0] != 0:
        raise UndecodablePixels(
            f"the pixel data is incomplete: {len(firsts)} of {frames} compressed frames are there"
        )
    end = firsts[frame + 1] if frame + 1 < len(firsts) else len(fragments)
    return fragments[firsts[frame] : end]
