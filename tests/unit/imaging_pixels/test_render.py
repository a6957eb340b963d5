from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file

from imaging_pixels.decode import UndecodablePixels
from imaging_pixels.render import render
from tests.synthetic_images import a_gradient, an_image, part10, read


def test_a_gray_instance_becomes_eight_bits_of_gray() -> None:
    picture = render(an_image(a_gradient().astype("u2")))

    assert picture.dtype == np.uint8
    assert picture.shape == (32, 48)
    assert (picture.min(), picture.max()) == (0, 255)


def test_a_color_instance_keeps_its_colors() -> None:
    colored = np.arange(24, dtype="u1").reshape(2, 4, 3)

    np.testing.assert_array_equal(render(an_image(colored)), colored)


def test_deep_color_is_cut_to_its_upper_eight_bits() -> None:
    colored = np.full((2, 2, 3), 0x0ABC, "u2")

    picture = render(an_image(colored, BitsStored=12, HighBit=11))

    assert set(picture.ravel().tolist()) == {0xAB}


def test_a_palette_is_looked_up() -> None:
    image = an_image(np.array([[0, 1, 2]], "u1"), PhotometricInterpretation="PALETTE COLOR")
    for color, entries in (
        ("Red", [0x0000, 0x8000, 0xFFFF]),
        ("Green", [0x1000, 0x2000, 0x3000]),
        ("Blue", [0xFFFF, 0x0000, 0x4000]),
    ):
        setattr(image, f"{color}PaletteColorLookupTableDescriptor", [3, 0, 16])
        setattr(image, f"{color}PaletteColorLookupTableData", np.array(entries, "<u2").tobytes())

    picture = render(image)

    assert picture.tolist() == [[[0, 0x10, 0xFF], [0x80, 0x20, 0], [0xFF, 0x30, 0x40]]]


def test_a_palette_that_is_missing_is_said_to_be() -> None:
    image = an_image(np.array([[0, 1, 2]], "u1"), PhotometricInterpretation="PALETTE COLOR")

    with pytest.raises(UndecodablePixels, match="palette"):
        render(image)


def test_a_frame_of_a_compressed_film_is_rendered() -> None:
    dataset = pydicom.dcmread(get_testdata_file("SC_rgb_rle_2frame.dcm"))

    first, second = render(dataset, 0), render(dataset, 1)

    assert first.shape == second.shape == (100, 100, 3)
    assert not np.array_equal(first, second)


def test_a_broken_table_is_said_to_be() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4, 0])
    item.add_new("LUTData", "OW", bytes([0, 10, 20, 255]))
    image = an_image(a_gradient().astype("u2"), VOILUTSequence=[item])

    with pytest.raises(UndecodablePixels, match="how its pixels are shown"):
        render(image)


def test_a_window_that_is_no_number_is_passed_over() -> None:
    image = an_image(a_gradient().astype("u2"))
    raw = part10(image)
    window = b"\x28\x00\x50\x10DS\x04\x00wide"
    pixels = raw.index(b"\xe0\x7f\x10\x00OW")

    picture = render(read(raw[:pixels] + window + raw[pixels:]))

    assert (picture.min(), picture.max()) == (0, 255)
