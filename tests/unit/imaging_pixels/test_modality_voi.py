from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import XRayAngiographicImageStorage

from imaging_pixels.modality_voi import Window, gray, modality_transformation
from tests.drawn_images import transformations
from tests.synthetic_images import a_gradient, an_image


def shown(image: Dataset, stored: Any) -> Any:
    return gray(image, stored)


def a_table(entries: Any, *, first: int = 0, bits: int = 8) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return item


def test_a_linear_window_follows_the_formula_of_the_standard() -> None:
    # The example of PS3.3 §C.11.2.1.2.1: center 2048, width 4096 over 0 to 4095.
    window = Window(2048, 4096)

    fractions = window.apply(np.array([0.0, 4095.0, 2047.5]))

    np.testing.assert_allclose(fractions, [0, 1, 0.5], atol=1e-12)


def test_a_window_of_width_one_is_a_threshold() -> None:
    fractions = Window(100, 1).apply(np.array([99.0, 99.5, 100.0]))

    assert fractions.tolist() == [0, 0, 1]


def test_linear_exact_spans_its_width_exactly() -> None:
    fractions = Window(0.5, 1.0, "LINEAR_EXACT").apply(np.array([0.0, 0.25, 0.5, 1.0, 2.0]))

    assert fractions.tolist() == [0, 0.25, 0.5, 1, 1]


def test_a_sigmoid_is_half_at_its_center_and_never_overflows() -> None:
    fractions = Window(40, 80, "SIGMOID").apply(np.array([-1e9, 40.0, 80.0, 1e9]))

    np.testing.assert_allclose(fractions, [0, 0.5, 1 / (1 + np.exp(-2)), 1], atol=1e-12)


@pytest.mark.parametrize(
    ("width", "function"), [(0, "LINEAR"), (0.5, "LINEAR"), (-1, "SIGMOID"), (0, "LINEAR_EXACT")]
)
def test_a_window_without_width_is_passed_over(width: float, function: str) -> None:
    stored = a_gradient(high=3000).astype("u2")
    image = an_image(stored, WindowCenter=10, WindowWidth=width, VOILUTFunction=function)

    picture = shown(image, stored)

    assert picture.min() == 0
    assert picture.max() == 255


def test_the_first_of_several_windows_is_taken() -> None:
    stored = np.array([[0, 100, 1000]], "u2")
    image = an_image(stored, WindowCenter=[50, 500], WindowWidth=[101, 1001])

    assert shown(image, stored).tolist() == [[1, 255, 255]]


def test_the_window_is_in_the_units_of_the_rescale() -> None:
    stored = np.array([[0, 1024, 2048]], "u2")
    image = an_image(
        stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0.5, WindowWidth=2049
    )

    assert shown(image, stored).tolist() == [[0, 128, 255]]


def test_a_modality_table_replaces_the_rescale() -> None:
    stored = np.array([[0, 10, 11, 12, 200]], "u1")
    image = an_image(stored, ModalityLUTSequence=[a_table([5, 7, 9], first=10)], RescaleSlope=99)

    values = modality_transformation(image)(stored.astype(float))

    assert values.tolist() == [[5, 5, 7, 9, 9]]


def test_the_modality_table_of_an_angiogram_is_for_measuring_only() -> None:
    stored = np.array([[1, 2]], "u1")
    image = an_image(
        stored, SOPClassUID=XRayAngiographicImageStorage, ModalityLUTSequence=[a_table([5, 7, 9])]
    )

    assert modality_transformation(image)(stored.astype(float)).tolist() == [[1, 2]]


def test_a_voi_table_goes_before_a_window() -> None:
    stored = np.array([[0, 1, 2, 3]], "u2")
    image = an_image(
        stored,
        VOILUTSequence=[a_table([0, 1023, 511], first=1, bits=10)],
        WindowCenter=0,
        WindowWidth=1,
    )

    assert shown(image, stored).tolist() == [[0, 0, 255, 127]]


def test_a_voi_table_may_begin_below_zero() -> None:
    stored = np.array([[0, 1, 2]], "u2")
    image = an_image(
        stored,
        RescaleSlope=1,
        RescaleIntercept=-2,
        VOILUTSequence=[a_table([255, 100, 0], first=-2)],
    )

    assert shown(image, stored).tolist() == [[255, 100, 0]]


@pytest.mark.parametrize("intercept", [0, -2])
def test_a_first_value_below_zero_may_be_written_as_if_it_were_unsigned(intercept: int) -> None:
    stored = np.array([[-2, -1, 0]], "i2") - np.array(intercept, "i2")
    stored = stored if intercept == 0 else stored.astype("u2")
    item = a_table([255, 100, 0])
    item.LUTDescriptor = [3, 2**16 - 2, 8]
    image = an_image(stored, RescaleSlope=1, RescaleIntercept=intercept, VOILUTSequence=[item])

    assert shown(image, stored).tolist() == [[255, 100, 0]]


def test_a_first_value_above_the_middle_is_one_where_nothing_is_below_zero() -> None:
    stored = np.array([[0, 40_000, 40_001]], "u2")
    image = an_image(stored, VOILUTSequence=[a_table([9, 255], first=40_000)])

    assert shown(image, stored).tolist() == [[9, 9, 255]]


def test_a_packed_table_of_bytes_is_read() -> None:
    stored = np.array([[0, 1, 2, 3]], "u2")
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4, 0, 8])
    item.add_new("LUTData", "OW", bytes([0, 10, 20, 255]))

    assert shown(an_image(stored, VOILUTSequence=[item]), stored).tolist() == [[0, 10, 20, 255]]


@pytest.mark.parametrize("bits", [0, 17, 255])
def test_a_table_of_an_impossible_depth_is_passed_over(bits: int) -> None:
    stored = np.array([[0, 255]], "u1")
    image = an_image(stored, VOILUTSequence=[a_table([9, 9], bits=bits)])

    assert shown(image, stored).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("photometric_interpretation", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_inversion_is_said_once_or_twice(
    photometric_interpretation: str, shape: str | None, inverted: bool
) -> None:
    stored = np.array([[0, 55, 255]], "u1")
    image = an_image(stored, PhotometricInterpretation=photometric_interpretation)
    if shape is not None:
        image.PresentationLUTShape = shape

    assert shown(image, stored).tolist() == [[255, 200, 0] if inverted else [0, 55, 255]]


def test_eight_bits_without_a_window_are_shown_as_they_are() -> None:
    stored = np.array([[10, 200]], "u1")

    assert shown(an_image(stored), stored).tolist() == [[10, 200]]


def test_more_than_eight_bits_without_a_window_span_what_is_there() -> None:
    stored = np.array([[1000, 1500, 2000]], "u2")

    assert shown(an_image(stored), stored).tolist() == [[0, 128, 255]]


def test_padding_is_black_and_counts_for_nothing() -> None:
    stored = np.array([[-2000, -1999, 0, 100]], "i2")
    image = an_image(
        stored,
        PhotometricInterpretation="MONOCHROME1",
        PixelPaddingValue=-2000,
        PixelPaddingRangeLimit=-1500,
    )

    assert shown(image, stored).tolist() == [[0, 0, 255, 0]]


def test_an_even_picture_is_black_and_not_a_division_by_zero() -> None:
    stored = np.full((2, 2), 700, "u2")

    assert shown(an_image(stored), stored).tolist() == [[0, 0], [0, 0]]


def test_a_frame_has_a_window_and_a_rescale_of_its_own() -> None:
    stored = np.array([[0, 100]], "u2")
    image = an_image(np.zeros((2, 1, 2), "u2"), frames=True, WindowCenter=5000, WindowWidth=10)
    rescale, first, second = Dataset(), Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, 0
    for item, center in ((first, 1000), (second, 100.5)):
        item.WindowCenter, item.WindowWidth = center, 201
    shared, frames = Dataset(), [Dataset(), Dataset()]
    shared.PixelValueTransformationSequence = [rescale]
    for frame, window in zip(frames, (first, second), strict=True):
        frame.FrameVOILUTSequence = [window]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = frames

    assert gray(image, stored, 0).tolist() == [[0, 0]]
    assert gray(image, stored, 1).tolist() == [[0, 255]]


def test_floating_point_values_that_are_no_numbers_do_no_harm() -> None:
    stored = np.array([[np.nan, -np.inf, 1.0, 3.0]], "f4")

    picture = gray(an_image(np.zeros((1, 4), "u2")), stored)

    assert picture.tolist()[0][2:] == [0, 255]


def looked_up(item: Dataset, value: float) -> int:
    """Look one value up as PS3.3 §C.11.1.1 says."""
    count, first, _ = item.LUTDescriptor
    place = min(max(round(value) - first, 0), count - 1)
    return int(item.LUTData[place])


def windowed(value: float, center: float, width: float, function: str) -> float:
    """Follow the pseudo-code of PS3.3 §C.11.2.1.2 and §C.11.2.1.3 for one value."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(-4 * (value - center) / width, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if value <= center - width / 2:
        return 0
    if value > center + width / 2:
        return 1
    return (value - center) / width + 0.5


def by_the_standard(image: Dataset, value: float) -> float:
    """Return the brightness of one stored value, 0 to 255."""
    if "ModalityLUTSequence" in image:
        value = looked_up(image.ModalityLUTSequence[0], value)
    elif "RescaleSlope" in image:
        value = value * float(image.RescaleSlope) + float(image.RescaleIntercept)
    if "VOILUTSequence" in image:
        item = image.VOILUTSequence[0]
        fraction = looked_up(item, value) / (2 ** item.LUTDescriptor[2] - 1)
    else:
        window = float(image.WindowCenter), float(image.WindowWidth)
        fraction = windowed(value, *window, image.VOILUTFunction)
    inverted = image.PhotometricInterpretation == "MONOCHROME1"
    return 255 * (1 - fraction if inverted else fraction)


@given(
    transformations(
        functions=("LINEAR", "LINEAR_EXACT", "SIGMOID"), slopes=("1", "2.5", "0.25", "-1")
    ),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    st.sampled_from(["u2", "i2", "u4", "i4", "f4", "f8"]),
    st.lists(st.integers(0, 4095), min_size=1, max_size=12),
)
def test_every_pipeline_follows_the_formulas_of_the_standard(
    attributes: dict[str, Any],
    photometric_interpretation: str,
    kind: str,
    values: list[int],
) -> None:
    stored = (np.array([values]) - (0 if kind[0] == "u" else 1000)).astype(kind)
    image = an_image(
        np.zeros((1, 1), "u2"),
        PhotometricInterpretation=photometric_interpretation,
        PixelRepresentation=int(kind[0] != "u"),
        **attributes,
    )

    picture = gray(image, stored)

    wanted = [by_the_standard(image, float(value)) for value in stored[0]]
    assert np.abs(picture[0] - np.array(wanted)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("padding", [63536, -2000])
def test_padding_may_be_written_as_if_it_were_unsigned(padding: int) -> None:
    stored = np.array([[-2000, 0, 100]], "i2")
    image = an_image(stored, PhotometricInterpretation="MONOCHROME1")
    image.add_new("PixelPaddingValue", "US" if padding > 0 else "SS", padding)

    assert shown(image, stored).tolist() == [[0, 255, 0]]


@pytest.mark.parametrize(("kind", "name"), [("f4", "Float"), ("f8", "DoubleFloat")])
def test_floating_point_values_have_padding_of_their_own(kind: str, name: str) -> None:
    stored = np.array([[-99.5, -98, 2, 4, np.nan, np.inf]], kind)
    image = an_image(np.zeros((1, 1), "u2"), PixelPaddingValue=2)
    setattr(image, f"{name}PixelPaddingValue", -99.5)
    setattr(image, f"{name}PixelPaddingRangeLimit", -98.0)

    assert shown(image, stored).tolist() == [[0, 0, 0, 255, 0, 0]]


def test_a_picture_of_padding_alone_is_black() -> None:
    stored = np.full((2, 2), 7, "u2")

    assert shown(an_image(stored, PixelPaddingValue=7), stored).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_few_bits_span_the_whole_range(bits: int) -> None:
    stored = np.array([[0, 2**bits - 1]], "u1")
    image = an_image(stored, BitsStored=bits)

    assert shown(image, stored).tolist() == [[0, 255]]


def test_a_large_frame_is_shown_as_a_small_one_is() -> None:
    stored = np.arange(300 * 300).reshape(300, 300) - 45_000
    image = an_image(np.zeros((1, 1), "u2"), WindowCenter=100, WindowWidth=30_000)
    below = shown(image, stored[:100].astype("i4")), shown(image, stored[100:].astype("i4"))

    np.testing.assert_array_equal(shown(image, stored.astype("i4")), np.concatenate(below))
