"""The compressed bytes of one frame: fragments and offset tables (PS3.5 §A.4)."""

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from imaging_pixels.image_pixel import UndecodablePixels

_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_DELIMITATION_ITEM = b"\xfe\xff\xdd\xe0"
_HEADER_BYTES = 8
_LONGEST_START_BYTES = 8
_UNDEFINED_LENGTH = 0xFFFFFFFF
_STARTS_OF_IMAGE = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")
"""Of JPEG and JPEG-LS, of JPEG 2000, and of the file format that must not wrap it but does."""

Content = bytes | memoryview
"""The value of Pixel Data, or a view of a file from there on: what follows its end is not read."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """Where all fragments are, and which of them begin a frame; of 16 bytes for each."""

    starts: Sequence[int]
    """Of their values, in the value of Pixel Data."""
    sizes_bytes: Sequence[int]
    firsts: Sequence[int]
    """The number of each frame's first fragment."""


class CodedFrames:
    """The compressed frames of one instance, found by as little reading as can be.

    A frame is found by the Extended Offset Table (PS3.3 §C.7.6.3.1.8), by the Basic Offset Table,
    or where neither leads to fragments, by what the fragments begin with. For that they are gone
    through once, however many frames are asked for: by ``find``, which may know them already.

    Raises
    ------
    UndecodablePixels
        The value does not begin with a Basic Offset Table.
    """

    def __init__(
        self,
        value: Content,
        frames: int,
        extended_offsets: tuple[bytes, bytes] | None = None,
        find: Callable[[], Fragments] | None = None,
    ) -> None:
        self._value = value
        self._frames = frames
        self._extended_offsets = extended_offsets
        self._find = find or partial(find_fragments, value, frames)
        self._basic_offsets, self._first = _basic_offset_table(value)
        self._fragments: Fragments | None = None

    def frame(self, number: int) -> bytes:
        """Return the compressed bytes of one frame, counted from 0, and copy no other.

        Raises
        ------
        UndecodablePixels
            A fragment is cut off, or the fragments cannot be told apart into as many frames.
        """
        found = None
        if self._extended_offsets is not None:
            found = _by_extended_offsets(self._value, self._first, number, self._extended_offsets)
        if found is None and len(self._basic_offsets) == self._frames > 1:
            found = _by_basic_offsets(self._value, self._first, number, self._basic_offsets)
        return self._by_fragments(number) if found is None else found

    def _by_fragments(self, number: int) -> bytes:
        if self._fragments is None:
            self._fragments = self._find()
        fragments = self._fragments
        firsts = fragments.firsts
        end = firsts[number + 1] if number + 1 < len(firsts) else len(fragments.starts)
        return b"".join(
            self._value[fragments.starts[own] : fragments.starts[own] + fragments.sizes_bytes[own]]
            for own in range(firsts[number], end)
        )


def coded_frame(
    value: Content,
    frame: int,
    frames: int,
    extended_offsets: tuple[bytes, bytes] | None = None,
) -> bytes:
    """Return one frame of :class:`CodedFrames`, counted from 0.

    Raises
    ------
    UndecodablePixels
        As it does.
    """
    return CodedFrames(value, frames, extended_offsets).frame(frame)


def find_fragments(value: Content, frames: int) -> Fragments:
    """Go through the fragments once, and tell so many frames apart.

    Raises
    ------
    UndecodablePixels
        A fragment is cut off, or there are not as many frames.
    """
    starts, sizes_bytes, images = array("Q"), array("Q"), array("Q")
    _, first = _basic_offset_table(value)
    for start, size_bytes in _fragments(value, first):
        if bytes(value[start : start + _LONGEST_START_BYTES]).startswith(_STARTS_OF_IMAGE):
            images.append(len(starts))
        starts.append(start)
        sizes_bytes.append(size_bytes)
    if not starts:
        raise UndecodablePixels("the pixel data is empty")
    if frames == 1:
        return Fragments(starts, sizes_bytes, (0,))
    if len(starts) == frames:
        return Fragments(starts, sizes_bytes, range(frames))
    if len(images) < frames or images[0] != 0:
        raise UndecodablePixels(
            f"the pixel data is incomplete: {len(images)} of {frames} compressed frames are there"
        )
    return Fragments(starts, sizes_bytes, images)


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


def _fragments(value: Content, at: int) -> Iterator[tuple[int, int]]:
    """Yield where the value of each item starts, and its length in bytes."""
    while value[at : at + 4] == _ITEM:
        fragment = _fragment(value, at)
        yield fragment
        at = sum(fragment)
    if value[at : at + 4] not in (b"", _SEQUENCE_DELIMITATION_ITEM):
        raise UndecodablePixels("the compressed pixel data has something between its fragments")


def _fragment(value: Content, at: int) -> tuple[int, int]:
    if at + _HEADER_BYTES > len(value):
        raise UndecodablePixels("the pixel data is truncated: a fragment is cut off")
    (length,) = struct.unpack_from("<I", value, at + 4)
    if length == _UNDEFINED_LENGTH or at + _HEADER_BYTES + length > len(value):
        raise UndecodablePixels("the pixel data is truncated: a fragment is cut off")
    return at + _HEADER_BYTES, length
