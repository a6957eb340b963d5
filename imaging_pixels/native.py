"""One frame of native pixel data: cells of any width, in either byte order (PS3.5 §8.1.1, §8.2)."""

import numpy as np

from imaging_pixels.image_pixel import ImagePixel, UndecodablePixels
from imaging_pixels.stored_bits import StoredValues, cell_type, cut

_BYTE, _WORD = 8, 2
_SUBSAMPLED = ("YBR_FULL_422", "YBR_PARTIAL_422")


def native_frame(value: bytes, image: ImagePixel, frame: int, *, vr: str) -> StoredValues:
    """Return one frame, counted from 0, out of all that there are, and touch no other.

    Color comes out by pixel, ``[rows, columns, 3]``, in its own color space; chrominance that two
    pixels share is given to both (PS3.3 §C.7.6.3.1.2).

    Raises
    ------
    UndecodablePixels
        The value is shorter than the Image Pixel module promises.
    """
    is_subsampled = image.photometric_interpretation in _SUBSAMPLED
    samples = 2 if is_subsampled else image.samples_per_pixel
    cells = image.rows * image.columns * samples
    needed = -(-cells * image.bits_allocated * image.frames // 8)
    if len(value) < needed:
        raise UndecodablePixels(
            f"the pixel data is truncated: {len(value)} of {needed} bytes are there"
        )
    if image.photometric_interpretation == "YBR_PARTIAL_420":
        raise UndecodablePixels("YBR_PARTIAL_420 is not read where it is not compressed")
    first = frame * cells
    if image.is_float:
        values = _floats(value, image, first, cells)
    else:
        is_little = image.transfer_syntax_uid.is_little_endian
        # VR OW is words of 16 bits whatever lies in them: their bytes are the other way round, and
        # nothing else is (PS3.5 §6.2, §7.3).
        has_swapped_words = not is_little and not (vr == "OB" and image.bits_allocated <= _BYTE)
        start = first * image.bits_allocated // 8
        end = -(-(first + cells) * image.bits_allocated // 8)
        content = _swapped(value, start, end) if has_swapped_words else value[start:end]
        values = _cells(content, image.bits_allocated, first, cells)
    if not image.is_float:
        values = cut(values, bits=image.bits_stored, top=image.high_bit, signed=image.is_signed)
    if is_subsampled:
        return _upsampled(values, image)
    return _by_pixel(values, image)


def _floats(value: bytes, image: ImagePixel, first: int, count: int) -> StoredValues:
    size = image.bits_allocated // 8
    order = "<" if image.transfer_syntax_uid.is_little_endian else ">"
    return np.frombuffer(value, f"{order}f{size}", count, first * size).astype(f"f{size}")


def _cells(content: bytes, width: int, first: int, count: int) -> StoredValues:
    """Take cells apart that follow each other without a gap, from the lowest bit up (§8.1.1)."""
    kind = cell_type(width, signed=False)
    if width == 8 * kind.itemsize:
        return np.frombuffer(content, kind.newbyteorder("<"), count).astype(kind)
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    bits = bits[first * width % 8 :][: count * width]
    if width == 1:
        return bits
    cells = np.zeros(count, kind)
    for place in range(width):
        cells |= bits[place::width].astype(kind) << kind.type(place)
    return cells


def _swapped(value: bytes, start: int, end: int) -> bytes:
    """Return these bytes of words whose bytes are the other way round."""
    first = start // _WORD * _WORD
    window = value[first : -(-end // _WORD) * _WORD]
    words = np.frombuffer(window + b"\0" * (len(window) % _WORD), "u2").byteswap()
    return words.tobytes()[start - first : end - first]


def _by_pixel(values: StoredValues, image: ImagePixel) -> StoredValues:
    if not image.is_color:
        return values.reshape(image.rows, image.columns)
    if image.planar_configuration == 1:
        planes = values.reshape(image.samples_per_pixel, image.rows, image.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return values.reshape(image.rows, image.columns, image.samples_per_pixel)


def _upsampled(values: StoredValues, image: ImagePixel) -> StoredValues:
    if image.columns % 2:
        raise UndecodablePixels("its pixels share their color in pairs, and Columns is odd")
    pairs = values.reshape(image.rows, image.columns // 2, 4)
    colored = np.empty((image.rows, image.columns, 3), values.dtype)
    colored[:, 0::2, 0], colored[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    for sample in (1, 2):
        colored[:, 0::2, sample] = colored[:, 1::2, sample] = pairs[..., sample + 1]
    return colored
