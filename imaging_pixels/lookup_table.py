"""Look-up tables as data sets hold them: of modality, VOI and palette (PS3.3 §C.11.1.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from imaging_pixels.stored_bits import StoredValues

Values = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]

_ENTRIES_OF_ZERO = 65536
_MOST_BITS = 16
_ROWS_AT_ONCE = 128


@dataclass(frozen=True)
class LookUpTable:
    """A value for every input from ``first`` on (PS3.3 §C.11.1.1)."""

    first: int
    entries: Values
    bits: int

    def apply(self, values: Values) -> Values:
        """Look every value up; what lies before the first or after the last entry takes that."""
        # Clipped before they become whole numbers, which have no infinity.
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        looked_up: Values = self.entries[index.astype(np.intp)]
        return looked_up


def descriptor(source: Dataset, keyword: str, *, is_signed: bool) -> tuple[int, int, int]:
    """Return number of entries, first value mapped and bits per entry of a table.

    The first value is signed where what is looked up is, and the others never are, whatever the VR
    says of all three.
    """
    count, first, bits = (int(value) for value in source[keyword].value)
    if is_signed and first >= 2**15:
        first -= 2**16
    return count % 2**16 or _ENTRIES_OF_ZERO, first, bits


def table_data(source: Dataset, keyword: str, count: int) -> npt.NDArray[np.uint16]:
    """Return what a table holds; entries of 8 bits may be packed two to a word (§C.11.1.1)."""
    data = source[keyword].value
    if isinstance(data, bytes):
        is_little = source.original_encoding[1] is not False
        words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if is_little else ">u2")
        is_packed = len(words) < count
        data = words.astype("<u2").view(np.uint8) if is_packed else words
        if is_packed and len(data) < count and len(source[keyword].value) % 2:
            data = np.frombuffer(source[keyword].value, np.uint8)
    array: npt.NDArray[Any] = np.asarray(data).reshape(-1)
    return array.astype(np.uint16)


def look_up_table(source: Dataset, keyword: str, *, is_signed: bool) -> LookUpTable | None:
    """Return the table in the first item of a sequence; ``None`` where there is none of use."""
    items = source.get(keyword) or []
    if not items or "LUTDescriptor" not in items[0] or "LUTData" not in items[0]:
        return None
    count, first, bits = descriptor(items[0], "LUTDescriptor", is_signed=is_signed)
    entries = table_data(items[0], "LUTData", count)[:count].astype(np.float64)
    if not entries.size or not 1 <= bits <= _MOST_BITS:
        return None
    return LookUpTable(first, entries, bits)


def each_value_once(shown: Callable[[StoredValues], Picture], stored: StoredValues) -> Picture:
    """Apply a function of one value to a frame, by a table where that is the shorter way.

    A few rows at a time, because what lies between values and picture is eight times as large.
    """
    if not stored.size:
        return shown(stored)
    look_up = shown
    if stored.dtype.kind in "iu":
        least, greatest = int(stored.min()), int(stored.max())
        if greatest - least < min(stored.size, 2**16):
            table = shown(np.arange(least, greatest + 1))
            unsigned = np.dtype(f"u{stored.dtype.itemsize}")

            def look_up(values: StoredValues) -> Picture:
                # Modulo the width of the cell, which takes the sign out of the difference.
                place = values.view(unsigned) - np.array(least).astype(unsigned)
                looked_up: Picture = table.take(place, axis=0)
                return looked_up

    parts = range(0, len(stored), _ROWS_AT_ONCE)
    return np.concatenate([look_up(stored[row : row + _ROWS_AT_ONCE]) for row in parts])
