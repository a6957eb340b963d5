"""Colors out of a palette (PS3.3 §C.7.6.3.1.5, §C.7.6.3.1.6, §C.7.9)."""

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from imaging_pixels.lookup_table import Picture, descriptor, each_value_once, table_data
from imaging_pixels.stored_bits import StoredValues

_COLORS = ("Red", "Green", "Blue")
_BYTE_DEPTH, _WORD_DEPTH = 8, 16
_DISCRETE, _LINEAR, _INDIRECT = range(3)

Entries = npt.NDArray[np.float64]


def palette_color(dataset: Dataset, stored: StoredValues) -> Picture:
    """Return ``[rows, columns, 3]`` of 8 bits for a frame of indices ``[rows, columns]``.

    Raises
    ------
    KeyError, ValueError
        A table is missing, or contradicts itself.
    """
    is_signed = stored.dtype.kind == "i"
    tables = [_table(dataset, color, is_signed=is_signed) for color in _COLORS]

    def shown(values: StoredValues) -> Picture:
        return np.stack(
            [
                entries[np.clip(values.astype(np.int64) - first, 0, len(entries) - 1)]
                for first, entries in tables
            ],
            axis=-1,
        )

    return each_value_once(shown, stored)


def _table(dataset: Dataset, color: str, *, is_signed: bool) -> tuple[int, Picture]:
    """Return the first value mapped, and the upper 8 bits of the entries from it on."""
    keyword = f"{color}PaletteColorLookupTable"
    count, first, bits = descriptor(dataset, f"{keyword}Descriptor", is_signed=is_signed)
    if bits not in (_BYTE_DEPTH, _WORD_DEPTH):
        reason = "an entry has neither 8 nor 16 bits"
        raise ValueError(reason)
    if f"{keyword}Data" in dataset:
        entries = table_data(dataset, f"{keyword}Data", count)[:count]
    else:
        entries = _expanded(dataset, f"Segmented{keyword}Data", count, bits)
    if not entries.size:
        reason = "a table is empty"
        raise ValueError(reason)
    return first, (entries >> (bits - _BYTE_DEPTH)).astype(np.uint8)


def _expanded(dataset: Dataset, keyword: str, count: int, bits: int) -> npt.NDArray[np.uint16]:
    """Expand a segmented table (PS3.3 §C.7.9.2) as far as the descriptor's number of entries.

    Segments may be copied from others, so that a few bytes could ask for any number of entries.
    """
    data = _segment_data(dataset, keyword, bits).tolist()
    expanded: list[int] = []
    at = 0
    while at < len(data) and len(expanded) < count:
        if data[at] == _INDIRECT:
            copies, place = data[at + 1], _offset(data[at + 2 :], bits)
            for _ in range(copies):
                if len(expanded) >= count:
                    break
                place = _segment(data, place, expanded)
            at += 2 + (4 if bits == _BYTE_DEPTH else 2)
        else:
            at = _segment(data, at, expanded)
    if len(expanded) < count:
        reason = "a segmented table has fewer entries than its descriptor says"
        raise ValueError(reason)
    return np.array(expanded[:count], np.uint16)


def _segment_data(dataset: Dataset, keyword: str, bits: int) -> npt.NDArray[np.uint16]:
    value = dataset[keyword].value
    if bits == _BYTE_DEPTH and isinstance(value, bytes):
        # More values than words makes bytes of them.
        return table_data(dataset, keyword, len(value))
    return table_data(dataset, keyword, 0)


def _segment(data: list[int], at: int, expanded: list[int]) -> int:
    """Append what one discrete or linear segment says, and return where the next one starts."""
    opcode, length = data[at], data[at + 1]
    if opcode == _DISCRETE:
        values = data[at + 2 : at + 2 + length]
        expanded += values
        return at + 2 + length
    if opcode == _LINEAR and expanded:
        start, end = expanded[-1], data[at + 2]
        steps = np.arange(1, length + 1) / max(length, 1)
        expanded += np.rint(start + (end - start) * steps).astype(int).tolist()
        return at + 3
    reason = "a segment is of no known kind, or stands where it must not"
    raise ValueError(reason)


def _offset(data: list[int], bits: int) -> int:
    """Return which value an indirect segment points at: its bytes come least significant first."""
    if bits == _BYTE_DEPTH:
        return int.from_bytes(bytes(data[:4]), "little")
    # The offset counts bytes.
    return (data[0] | data[1] << _WORD_DEPTH) // 2
