"""Stored values, and how they lie in the cells that hold them (PS3.5 §8.1.1)."""

from typing import Any

import numpy as np
import numpy.typing as npt

StoredValues = npt.NDArray[Any]
"""``[rows, columns]``, or ``[rows, columns, 3]`` where there are three samples per pixel."""


def cell_type(bits: int, *, signed: bool) -> np.dtype[Any]:
    """Return the smallest integer type that holds so many bits, in the machine's byte order."""
    size = next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    return np.dtype(f"{'i' if signed else 'u'}{size}")


def cut(cells: StoredValues, *, bits: int, top: int, signed: bool) -> StoredValues:
    """Return the ``bits`` of every cell that end at the bit ``top``, as signed or unsigned values.

    What lies above (overlays of old instances) and below counts for nothing.
    """
    width = cells.dtype.itemsize * 8
    kind = cell_type(width, signed=signed)
    values: StoredValues = cells.view(kind) if cells.dtype.kind in "iu" else cells.astype(kind)
    if bits == width:
        return values
    # Left to the top of the cell, then back down: the second shift brings the sign with it.
    values = values << kind.type(width - 1 - top)
    values >>= kind.type(width - bits)
    return values
