from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from imaging_pixels.decode import UndecodablePixels, decode
from tests.drawn_images import NATIVE, cells_and_values, with_cells
from tests.synthetic_images import an_image


@given(cells_and_values())
def test_a_value_is_cut_out_of_a_cell_of_any_width(drawn: tuple[Dataset, Any]) -> None:
    image, values = drawn

    for frame, wanted in enumerate(values):
        np.testing.assert_array_equal(decode(image, frame), wanted)


@given(
    frames=st.integers(1, 3),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    width=st.sampled_from([8, 16]),
    is_planar=st.booleans(),
    transfer_syntax_uid=st.sampled_from(NATIVE),
)
def test_color_comes_out_by_pixel(
    frames: int, rows: int, columns: int, width: int, is_planar: bool, transfer_syntax_uid: Any
) -> None:
    count = frames * rows * columns * 3
    colored = (np.arange(count) * 7919 % 2**width).reshape(frames, rows, columns, 3)
    cells = colored.transpose(0, 3, 1, 2) if is_planar else colored
    image = an_image(colored[0].astype(f"u{width // 8}"), PlanarConfiguration=int(is_planar))
    image.NumberOfFrames = frames
    with_cells(image, cells, transfer_syntax_uid)

    for frame in range(frames):
        np.testing.assert_array_equal(decode(image, frame), colored[frame])


def an_eight_bit_image_of_words() -> Dataset:
    image = an_image(np.zeros((3, 1, 3), "u1"), frames=True)
    return with_cells(image, np.arange(9), ExplicitVRBigEndian)


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_bytes_in_swapped_words_are_put_right_where_frames_are_odd(frame: int) -> None:
    image = an_eight_bit_image_of_words()

    assert image.PixelData[:2] == b"\1\0"
    assert decode(image, frame).tolist() == [[3 * frame, 3 * frame + 1, 3 * frame + 2]]


def test_bytes_in_bytes_need_no_swap() -> None:
    image = an_eight_bit_image_of_words()
    image.PixelData = bytes(range(10))
    image["PixelData"].VR = "OB"

    assert decode(image, 1).tolist() == [[3, 4, 5]]


def ybr(y: Any, blue: Any, red: Any, middle: int = 128) -> list[Any]:
    """Return R, G and B by the equations of PS3.3 §C.7.6.3.1.2, solved by hand."""
    return [
        y + 1.402 * (red - middle),
        y - 0.114 * 1.772 / 0.587 * (blue - middle) - 0.299 * 1.402 / 0.587 * (red - middle),
        y + 1.772 * (blue - middle),
    ]


@given(
    st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=4, max_size=4),
    st.sampled_from([8, 16]),
)
def test_ybr_full_follows_the_equations_of_the_standard(pixels: Any, bits: int) -> None:
    colored = (np.array(pixels) << (bits - 8)).reshape(2, 2, 3)
    image = an_image(colored.astype(f"u{bits // 8}"), PhotometricInterpretation="YBR_FULL")

    values = decode(image)

    wanted = np.stack(ybr(*np.moveaxis(colored.astype(float), -1, 0), 2 ** (bits - 1)), axis=-1)
    assert values.dtype == f"u{bits // 8}"
    assert np.abs(values - np.clip(wanted, 0, 2**bits - 1)).max() <= 0.51


def test_two_pixels_share_their_color() -> None:
    image = an_image(np.zeros((1, 2, 3), "u1"), PhotometricInterpretation="YBR_FULL_422")
    image.PixelData = bytes([50, 90, 100, 200])

    [[first, second]] = decode(image).tolist()

    assert first == np.clip(np.rint(ybr(50, 100, 200)), 0, 255).tolist()
    assert second == np.clip(np.rint(ybr(90, 100, 200)), 0, 255).tolist()


def test_a_partial_range_is_spread() -> None:
    image = an_image(np.zeros((1, 2, 3), "u1"), PhotometricInterpretation="YBR_PARTIAL_422")
    image.PixelData = bytes([16, 235, 128, 128])

    assert decode(image).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_shared_color_needs_pairs() -> None:
    image = an_image(np.zeros((1, 3, 3), "u1"), PhotometricInterpretation="YBR_FULL_422")

    with pytest.raises(UndecodablePixels, match="Columns is odd"):
        decode(image)


@pytest.mark.parametrize("transfer_syntax_uid", NATIVE)
@pytest.mark.parametrize(
    ("keyword", "kind"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")]
)
def test_floating_point_values_are_read(keyword: str, kind: str, transfer_syntax_uid: Any) -> None:
    values = np.array([[[0.5, -1e30]], [[np.pi, 7.0]]], kind)
    image = an_image(np.zeros((2, 1, 2), "u4"), frames=True)
    del image.PixelData, image.BitsStored, image.HighBit, image.PixelRepresentation
    image.file_meta.TransferSyntaxUID = transfer_syntax_uid
    order = "<" if transfer_syntax_uid.is_little_endian else ">"
    setattr(image, keyword, values.astype(f"{order}{kind}").tobytes())

    np.testing.assert_array_equal(decode(image, 1), values[1])


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BitsStored": 17}, "BitsStored"),
        ({"BitsAllocated": 99, "BitsStored": 99}, "do not fit"),
        ({"SamplesPerPixel": 4}, "SamplesPerPixel"),
        ({"PhotometricInterpretation": "HSV"}, "none that is read"),
        ({"PhotometricInterpretation": "RGB"}, "does not fit SamplesPerPixel"),
        ({"Rows": 0}, "Rows"),
        ({"Columns": 0}, "Columns"),
    ],
)
def test_an_image_pixel_module_that_contradicts_itself_is_refused(
    attributes: dict[str, Any], reason: str
) -> None:
    image = an_image(np.zeros((4, 4), "u2"), **attributes)

    with pytest.raises(UndecodablePixels, match=reason):
        decode(image)


def test_a_high_bit_that_cannot_be_is_passed_over() -> None:
    image = an_image(np.array([[0xF123]], "u2"), BitsStored=12, HighBit=3)

    assert decode(image).tolist() == [[0x123]]


def test_one_frame_of_a_thousand_takes_the_memory_of_one() -> None:
    image = an_image(np.zeros((1, 1, 1), "u2"), frames=True, Rows=100, Columns=100)
    image.NumberOfFrames = 1000
    image.PixelData = bytes(1000 * 100 * 100 * 2)

    tracemalloc.start()
    decode(image, 999)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 5 * 100 * 100 * 2


def test_without_a_transfer_syntax_it_is_read_as_it_was_parsed() -> None:
    image = an_image(np.array([[1, 2, 3]], "u2"))
    del image.file_meta
    image.set_original_encoding(is_implicit_vr=False, is_little_endian=True)

    assert decode(image).tolist() == [[1, 2, 3]]
