"""Pictures that no model should be asked about."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.input_quality import LEAST_SIDE, _percentiles, quality_fault

Picture = npt.NDArray[np.uint8]


def a_sound_picture(rows: int = 128, columns: int = 160) -> Picture:
    levels = np.linspace(0, 255, rows * columns).reshape(rows, columns)
    return np.asarray(levels, dtype=np.uint8)


def in_color(picture: Picture) -> Picture:
    return np.repeat(picture[..., np.newaxis], 3, axis=-1)


@pytest.mark.parametrize("picture", [a_sound_picture(), in_color(a_sound_picture())])
def test_a_sound_picture_has_no_fault(picture: Picture) -> None:
    assert quality_fault(picture) is None


@pytest.mark.parametrize("shape", [(3, 3), (LEAST_SIDE - 1, 500), (500, LEAST_SIDE - 1)])
def test_a_picture_may_be_too_small_on_either_side(shape: tuple[int, int]) -> None:
    fault = quality_fault(a_sound_picture(*shape))

    assert fault is not None
    assert f"{shape[1]} x {shape[0]} pixels" in fault


def test_the_smallest_picture_is_judged() -> None:
    assert quality_fault(a_sound_picture(LEAST_SIDE, LEAST_SIDE)) is None


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_gray_level_is_blank(level: int) -> None:
    fault = quality_fault(np.full((128, 128), level, dtype=np.uint8))

    assert fault is not None
    assert "blank" in fault


def test_a_few_odd_pixels_do_not_fill_a_blank_picture() -> None:
    picture = np.zeros((200, 200), dtype=np.uint8)
    picture[:10, :10] = 255  # a marker

    fault = quality_fault(picture)

    assert fault is not None
    assert "blank" in fault


def test_a_picture_that_is_mostly_white_is_overexposed() -> None:
    picture = a_sound_picture()
    picture[: 6 * len(picture) // 10] = 255

    fault = quality_fault(picture)

    assert fault is not None
    assert "overexposed" in fault


def test_a_picture_that_is_mostly_black_is_judged() -> None:
    picture = a_sound_picture()
    picture[: 8 * len(picture) // 10] = 0

    assert quality_fault(picture) is None


def test_a_picture_of_black_and_white_alone_is_saturated() -> None:
    picture = np.where(a_sound_picture() < 160, 0, 255).astype(np.uint8)

    fault = quality_fault(picture)

    assert fault is not None
    assert "saturated" in fault


@given(st.lists(st.integers(0, 255), min_size=1, max_size=300))
def test_percentiles_of_counts_are_those_of_the_pixels(levels: list[int]) -> None:
    counts = np.bincount(levels, minlength=256).astype(np.float32)

    assert _percentiles(counts, (1, 99)) == pytest.approx(np.percentile(levels, (1, 99)))
