"""One frame of native pixel data: cells of any width, in either byte order (PS3.5 §8.1.1, §8.2)."""

import numpy as np
import numpy.typing as npt

from imaging_pixels.image_pixel import ImagePixel, UndecodablePixels
from imaging_pixels.stored_bits import StoredValues, cell_type, cut

_WORD = 2
_FLOATS = {32: "f4", 64: "f8"}
_MACHINE_CELLS = (8, 16, 32, 64)
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
    swapped = not image.transfer_syntax_uid.is_little_endian
    # Cells that are no whole number of bytes lie in words of 16 bits, and 8-bit cells may.
    as_words = swapped and (image.bits_allocated not in _MACHINE_CELLS[1:]) and vr != "OB"
    if image.bits_allocated in _MACHINE_CELLS:
        values = _machine_cells(value, image, frame * cells, cells, as_words=as_words)
    else:
        values = _packed_cells(value, image, frame * cells, cells, as_words=as_words)
    if not image.is_float:
        values = cut(values, bits=image.bits_stored, top=image.high_bit, signed=image.is_signed)
    if is_subsampled:
        return _upsampled(values, image)
    return _by_pixel(values, image)


def _machine_cells(
    value: bytes, image: ImagePixel, first: int, count: int, *, as_words: bool
) -> npt.NDArray[np.generic]:
    order = "<" if image.transfer_syntax_uid.is_little_endian else ">"
    kind = _FLOATS[image.bits_allocated] if image.is_float else f"u{image.bits_allocated // 8}"
    if as_words:
        return _swapped(value, first, first + count)[:count]
    size = image.bits_allocated // 8
    cells = np.frombuffer(value, f"{order}{kind}", count, first * size)
    return cells.astype(kind)


def _packed_cells(
    value: bytes, image: ImagePixel, first: int, count: int, *, as_words: bool
) -> npt.NDArray[np.generic]:
    """Unpack cells that follow each other without a gap, from the lowest bit up (PS3.5 §8.1.1)."""
    width = image.bits_allocated
    start, end = first * width, (first + count) * width
    if as_words:
        data = _swapped(value, start // 8, -(-end // 8))
    else:
        data = np.frombuffer(value, np.uint8, -(-end // 8) - start // 8, start // 8)
    bits = np.unpackbits(data, bitorder="little")[start % 8 :][: count * width]
    if width == 1:
        return bits
    cells = np.zeros(count, cell_type(width, signed=False))
    for place in range(width):
        cells |= bits[place::width].astype(cells.dtype) << cells.dtype.type(place)
    return cells


def _swapped(value: bytes, start: int, end: int) -> npt.NDArray[np.uint8]:
    """Return these bytes of words whose bytes are the other way round."""
    first = start // _WORD * _WORD
    window = value[first : -(-end // _WORD) * _WORD]
    words = np.frombuffer(window + b"\0" * (len(window) % _WORD), "u2").byteswap()
    return words.view(np.uint8)[start - first : end - first]


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
