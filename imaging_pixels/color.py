"""From YBR to RGB (PS3.3 §C.7.6.3.1.2)."""

import numpy as np

from imaging_pixels.stored_bits import StoredValues

_ROWS_AT_ONCE = 128
_BYTE_DEPTH = 8

# The weights of red and blue in the luminance give the rest.
_RED, _BLUE = 0.299, 0.114
_GREEN = 1 - _RED - _BLUE
_FULL = np.array(
    [
        [1, 0, 2 * (1 - _RED)],
        [1, -2 * (1 - _BLUE) * _BLUE / _GREEN, -2 * (1 - _RED) * _RED / _GREEN],
        [1, 2 * (1 - _BLUE), 0],
    ]
)
_PARTIAL = np.array([[1.1644, 0, 1.596], [1.1644, -0.3917, -0.8130], [1.1644, 2.0173, 0]])


def rgb(ybr: StoredValues, photometric_interpretation: str, bits_stored: int) -> StoredValues:
    """Return ``[rows, columns, 3]`` in RGB, of the same type and depth.

    The partial ranges are those of the retired YBR_PARTIAL_422 and of YBR_PARTIAL_420: luminance
    from 16 to 235 and chrominance from 16 to 240 of 8 bits.
    """
    is_partial = photometric_interpretation.startswith("YBR_PARTIAL")
    matrix = _PARTIAL if is_partial else _FULL
    middle = 2.0 ** (bits_stored - 1)
    black = 2.0 ** (bits_stored - 4) if is_partial else 0.0
    offsets = np.array([black, middle, middle])
    converted = np.empty_like(ybr)
    # A few rows at a time: as floating point numbers a frame is four or eight times as large.
    precise = np.float32 if bits_stored <= _BYTE_DEPTH else np.float64
    for first in range(0, len(ybr), _ROWS_AT_ONCE):
        rows = ybr[first : first + _ROWS_AT_ONCE].astype(precise) - offsets.astype(precise)
        colors = np.rint(rows @ matrix.T.astype(precise))
        converted[first : first + _ROWS_AT_ONCE] = np.clip(colors, 0, 2.0**bits_stored - 1)
    return converted
