"""RLE Lossless: byte segments of packed runs (PS3.5 Annex G)."""

import struct

import numpy as np

from imaging_pixels.image_pixel import ImagePixel, UndecodablePixels
from imaging_pixels.stored_bits import StoredValues

_HEADER_BYTES = 64
_NOTHING = 128
_WIDTHS = (8, 16, 32, 64)


def rle_frame(coded: bytes, image: ImagePixel) -> StoredValues:
    """Return the cells of one frame, ``[rows, columns]`` or ``[rows, columns, 3]``.

    Raises
    ------
    UndecodablePixels
        There are not as many segments as bytes in a pixel, or one of them ends early.
    """
    if len(coded) < _HEADER_BYTES:
        raise UndecodablePixels("the pixel data is truncated: the header of the frame is cut off")
    count, *offsets = struct.unpack_from("<16I", coded)
    pixels = image.rows * image.columns
    # Single bits are packed into bytes before they are compressed.
    is_of_bits = image.bits_allocated == 1 and not image.is_color
    size = 1 if is_of_bits else image.bits_allocated // 8
    is_whole = is_of_bits or image.bits_allocated in _WIDTHS
    if not is_whole or count != size * image.samples_per_pixel:
        raise UndecodablePixels("the compressed frame has not a segment for each byte of a pixel")
    bounds = [*offsets[:count], len(coded)]
    if is_of_bits:
        packed = np.frombuffer(_unpacked(coded[bounds[0] : bounds[1]], -(-pixels // 8)), np.uint8)
        bits = np.unpackbits(packed, count=pixels, bitorder="little")
        return bits.reshape(image.rows, image.columns)
    planes = np.zeros((image.samples_per_pixel, pixels, size), np.uint8)
    for segment in range(count):
        sample, place = divmod(segment, size)
        # The most significant byte comes first; the machine has it last.
        content = coded[bounds[segment] : bounds[segment + 1]]
        planes[sample, :, size - 1 - place] = np.frombuffer(_unpacked(content, pixels), np.uint8)
    cells = planes.view(f"<u{size}")[..., 0].astype(f"u{size}")
    if image.is_color:
        return np.ascontiguousarray(cells.T).reshape(image.rows, image.columns, 3)
    return cells.reshape(image.rows, image.columns)


def _unpacked(content: bytes, wanted: int) -> bytes:
    """Return so many bytes of a segment, and never more (PS3.5 §G.3.2)."""
    unpacked = bytearray()
    at, end = 0, len(content)
    while at < end and len(unpacked) < wanted:
        header = content[at]
        if header < _NOTHING:
            unpacked += content[at + 1 : at + 2 + header]
            at += 2 + header
        else:
            if header > _NOTHING:
                unpacked += content[at + 1 : at + 2] * (257 - header)
            at += 2 if header > _NOTHING else 1
    if len(unpacked) < wanted:
        raise UndecodablePixels("the pixel data is truncated: a segment of the frame ends early")
    return bytes(unpacked[:wanted])
