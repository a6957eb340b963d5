"""What a compressed frame says of itself, read before anything is decompressed.

PS3.5 §8.2.1 and §8.2.4: where the compressed frame and the Image Pixel module differ, the frame
says how it is to be decompressed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imaging_pixels.image_pixel import UndecodablePixels

_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_START_OF_SCAN, _APPLICATION_0, _ADOBE = 0xDA, 0xE0, 0xEE
_APPLICATION_DATA, _COMMENT = range(0xE0, 0xF0), 0xFE
_HUFFMAN_TABLES, _ARITHMETIC_CONDITIONS, _EXTENSION = 0xC4, 0xCC, 0xC8
_START_OF_FRAME_JPEG_LS = 0xF7
_STARTS_OF_FRAME = {*range(0xC0, 0xD0), _START_OF_FRAME_JPEG_LS} - {
    _HUFFMAN_TABLES,
    _ARITHMETIC_CONDITIONS,
    _EXTENSION,
}
_MARKER, _LENGTH_BYTES = 0xFF, 2
_SEQUENTIAL_DCT = (0, 1)
_RGB_COMPONENTS = (b"RGB", b"rgb")
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
_CODING_STYLE, _START_OF_TILE_PART = 0x52, 0x90

_FRAME_HEADER_BYTES = 6
_MARKERS_BYTES = 4
"""Of the least that can be told from another kind of frame."""

_OF_ANOTHER_KIND = "the compressed frame is not of the kind that its transfer syntax says"
_TRUNCATED = "the pixel data is truncated: the header of the compressed frame is cut off"


@dataclass(frozen=True)
class CodedFrame:
    """The header of one compressed frame."""

    rows: int
    columns: int
    samples: int
    precision: int
    """Bits per sample."""
    codestream: bytes
    """Without what another file format put around it, and mended where it has but one meaning."""
    process: int = 0
    """JPEG: the number n of its SOFn marker."""
    is_signed: bool = False
    is_rgb: bool | None = None
    """What it says of its colors: RGB, or YCbCr; ``None`` where it says nothing."""


def jpeg_frame(coded: bytes) -> CodedFrame:
    """Read the header of a JPEG or JPEG-LS frame (ITU-T T.81 §B.2, T.87 §C.2).

    The colors are those of its component identifiers, its JFIF header (T.871) or its Adobe marker.

    Raises
    ------
    UndecodablePixels
        It is not such a frame, or it is cut off: the codecs fill what is missing with gray and say
        nothing. Neither marker of a frame's end can occur within a scan, because both codings
        stuff what follows a byte of ones.
    """
    if not coded.startswith(_START_OF_IMAGE):
        raise UndecodablePixels(_OF_ANOTHER_KIND if len(coded) >= _MARKERS_BYTES else _TRUNCATED)
    frame_header, process, mended = b"", 0, coded
    is_jfif, adobe_transform = False, b""
    for marker, start, end in _segments(coded):
        content = coded[start:end]
        if marker in _STARTS_OF_FRAME:
            frame_header, process = content, marker & 0x0F
        elif marker == _APPLICATION_0:
            is_jfif = is_jfif or content.startswith(b"JFIF\0")
        elif marker == _ADOBE and content.startswith(b"Adobe"):
            adobe_transform = content[11:12]
        elif marker == _START_OF_SCAN and process in _SEQUENTIAL_DCT:
            # T.81 §B.2.3 leaves a sequential scan one spectral selection, and some encoders err.
            mended = coded[: end - 3] + b"\0\x3f\0" + coded[end:]
    if len(frame_header) < _FRAME_HEADER_BYTES:
        raise UndecodablePixels(_TRUNCATED)
    if coded.rfind(_END_OF_IMAGE) <= coded.rfind(b"\xff\xda"):
        raise UndecodablePixels("the pixel data is truncated: the compressed frame has no end")
    precision, rows, columns, samples = struct.unpack_from(">BHHB", frame_header)
    is_rgb = _says_rgb(frame_header[6::3], adobe_transform, is_jfif=is_jfif)
    return CodedFrame(rows, columns, samples, precision, mended, process, is_rgb=is_rgb)


def _says_rgb(identifiers: bytes, adobe_transform: bytes, *, is_jfif: bool) -> bool | None:
    if identifiers in _RGB_COMPONENTS:
        return True
    if is_jfif:
        return False
    return adobe_transform == b"\0" if adobe_transform else None


def as_rgb_or_not(coded: bytes, *, is_rgb: bool) -> bytes:
    """Return a JPEG frame that says of itself, in an Adobe marker alone, what its colors are.

    A decoder that obeys such a marker then converts YCbCr, and RGB not.
    """
    transform = 0 if is_rgb else 1
    parts = [_START_OF_IMAGE, b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0", bytes([transform])]
    scan = 0
    for marker, start, end in _segments(coded):
        if marker not in _APPLICATION_DATA and marker != _COMMENT:
            parts.append(coded[start - 4 : end])
        scan = end
    return b"".join([*parts, coded[scan:]])


def jpeg_2000_frame(coded: bytes) -> CodedFrame:
    """Read the header of a JPEG 2000 or HTJ2K frame (ITU-T T.800 §A.5, §A.6).

    Raises
    ------
    UndecodablePixels
        It is not such a frame, its header is cut off, or its samples differ in depth.
    """
    at = coded.find(_START_OF_CODESTREAM)
    if at < 0:
        raise UndecodablePixels(_OF_ANOTHER_KIND if len(coded) >= _MARKERS_BYTES else _TRUNCATED)
    codestream = coded[at:]
    try:
        right, bottom, left, top = struct.unpack_from(">4I", codestream, 8)
        (samples,) = struct.unpack_from(">H", codestream, 40)
        depths = {codestream[42 + 3 * sample] for sample in range(samples)}
        transformed = _is_color_transformed(codestream, 4)
    except (struct.error, IndexError):
        raise UndecodablePixels(_TRUNCATED) from None
    if len(depths) != 1:
        raise UndecodablePixels("the samples of the compressed frame differ in depth")
    [depth] = depths
    return CodedFrame(
        rows=bottom - top,
        columns=right - left,
        samples=samples,
        precision=(depth & 0x7F) + 1,
        codestream=codestream,
        is_signed=bool(depth & 0x80),
        is_rgb=True if transformed else None,
    )


def _segments(coded: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker segments up to the first scan: marker, and where its content is."""
    at = len(_START_OF_IMAGE)
    while True:
        while coded[at : at + 1] == b"\xff" and coded[at + 1 : at + 2] == b"\xff":
            at += 1
        if len(coded) < at + 4 or coded[at] != _MARKER:
            raise UndecodablePixels(_TRUNCATED)
        marker = coded[at + 1]
        (length,) = struct.unpack_from(">H", coded, at + 2)
        end = at + 2 + length
        if length < _LENGTH_BYTES or end > len(coded):
            raise UndecodablePixels(_TRUNCATED)
        yield marker, at + 4, end
        if marker == _START_OF_SCAN:
            return
        at = end


def _is_color_transformed(codestream: bytes, at: int) -> bool:
    """Tell whether the main header asks for the multiple component transformation."""
    at += struct.unpack_from(">H", codestream, at)[0]
    while True:
        marker, length = struct.unpack_from(">xBH", codestream, at)
        if marker == _CODING_STYLE:
            return bool(codestream[at + 8])
        if marker == _START_OF_TILE_PART:
            return False
        at += 2 + length
