from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from imaging_pixels.decode import UndecodablePixels
from imaging_pixels.render import render
from tests.synthetic_images import an_image

COLORS = ("Red", "Green", "Blue")


def with_palette(
    stored: Any, tables: Any, *, first: int = 0, bits: int = 16, count: int | None = None
) -> Dataset:
    """Make an instance with three tables of bytes, segmented where they are tuples."""
    image = an_image(stored, PhotometricInterpretation="PALETTE COLOR")
    for color, table in zip(COLORS, tables, strict=True):
        keyword = f"{color}PaletteColorLookupTable"
        length = count or len(table) * 8 // bits
        vr = "SS" if first < 0 else "US"
        image.add_new(f"{keyword}Descriptor", vr, [length % 2**16, first, bits])
        name = f"Segmented{keyword}Data" if isinstance(table, bytearray) else f"{keyword}Data"
        image.add_new(name, "OW", bytes(table) + b"\0" * (len(table) % 2))
    return image


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def segments(*values: int) -> bytearray:
    return bytearray(words(*values))


@given(
    entries=st.lists(st.tuples(*[st.integers(0, 2**16 - 1)] * 3), min_size=1, max_size=30),
    first=st.integers(-20, 20),
    kind=st.sampled_from(["u1", "i2", "u2"]),
)
def test_every_index_takes_the_upper_bits_of_its_entry(
    entries: list[tuple[int, int, int]], first: int, kind: str
) -> None:
    first = max(first, 0 if kind[0] == "u" else -20)
    stored = np.arange(100).reshape(10, 10).astype(kind) + np.array(first - first % 3, kind)
    tables = [words(*column) for column in zip(*entries, strict=True)]

    picture = render(with_palette(stored, tables, first=first))

    for value, color in zip(stored.ravel(), picture.reshape(-1, 3).tolist(), strict=True):
        entry = entries[min(max(int(value) - first, 0), len(entries) - 1)]
        assert color == [sample >> 8 for sample in entry]


def test_tables_of_bytes_are_packed() -> None:
    image = with_palette(np.array([[0, 1, 2]], "u1"), [b"\1\2\3", b"\4\5\6", b"\7\10\11"], bits=8)

    assert render(image).tolist() == [[[1, 4, 7], [2, 5, 8], [3, 6, 9]]]


def test_bytes_may_each_have_a_word() -> None:
    tables = [words(1, 2, 3)] * 3
    image = with_palette(np.array([[0, 1, 2]], "u1"), tables, bits=8, count=3)

    assert render(image)[..., 0].tolist() == [[1, 2, 3]]


def test_a_table_of_every_16_bit_value_has_a_length_of_zero() -> None:
    table = np.arange(2**16, dtype="<u2").tobytes()
    image = with_palette(np.array([[0, 0x1234, 0xFFFF]], "u2"), [table] * 3)

    assert image.RedPaletteColorLookupTableDescriptor[0] == 0
    assert render(image)[..., 2].tolist() == [[0, 0x12, 0xFF]]


def test_segments_are_values_lines_and_copies() -> None:
    # Values 0 and 256; a line of four up to 1280; both once more from the start of the table.
    table = segments(0, 2, 0, 256, 1, 4, 1280, 2, 2, 0, 0)
    image = with_palette(np.arange(12, dtype="u1").reshape(1, 12), [table] * 3, count=12)

    assert render(image)[..., 0].tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]]


def test_segments_of_bytes_point_with_four_bytes() -> None:
    table = bytearray([0, 2, 10, 20, 1, 2, 40, 2, 1, 0, 0, 0, 0])
    image = with_palette(np.arange(6, dtype="u1").reshape(1, 6), [table] * 3, bits=8, count=6)

    assert render(image)[..., 1].tolist() == [[10, 20, 30, 40, 10, 20]]


@pytest.mark.parametrize(
    "table",
    [
        segments(1, 4, 9),  # a line from nowhere
        segments(0, 9, 1),  # fewer values than said
        segments(7, 1, 1),  # no such kind
        segments(0, 1, 5, 2, 1, 6, 0),  # a copy of a copy
        segments(0, 1, 5, 2, 1, 0, 99),  # a copy of what is not there
        segments(0, 1),
        segments(),
    ],
)
def test_a_segmented_palette_that_leads_nowhere_is_refused(table: bytearray) -> None:
    image = with_palette(np.arange(6, dtype="u1").reshape(1, 6), [table] * 3, count=60)

    with pytest.raises(UndecodablePixels, match="palette is missing or broken"):
        render(image)


def test_a_segmented_palette_is_expanded_no_further_than_its_descriptor_says() -> None:
    # One value, then a copy of the 300 lines after it, of 65535 values each: 256 are wanted.
    table = segments(0, 1, 7, 2, 300, 14, 0, *[1, 65535, 7] * 300)
    image = with_palette(np.full((1, 1), 255, "u1"), [table] * 3, count=256)

    tracemalloc.start()
    picture = render(image)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert picture.tolist() == [[[0, 0, 0]]]
    assert peak_bytes < 2**24


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(0, 40))
def test_noise_instead_of_segments_is_a_palette_or_refused(noise: list[int], count: int) -> None:
    image = with_palette(np.zeros((2, 2), "u1"), [segments(*noise)] * 3, count=count + 1)

    try:
        picture = render(image)
    except UndecodablePixels:
        return
    assert picture.shape == (2, 2, 3)


def test_a_supplemental_palette_leaves_gray_alone() -> None:
    # PS3.3 §C.7.6.19: it colors values above the gray ones, for who shows both.
    image = with_palette(np.array([[0, 128, 255]], "u1"), [words(1, 2, 3)] * 3)
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelPresentation = "COLOR"

    assert render(image).tolist() == [[0, 128, 255]]
