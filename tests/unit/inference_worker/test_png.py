"""A PNG holds the very pixels, as others read it."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inference_worker.png import png_of

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))


@given(shapes.flatmap(lambda shape: arrays.arrays(np.uint8, shape)))
def test_a_gray_picture_is_kept_gray_and_whole(picture: np.ndarray) -> None:
    read = cv2.imdecode(np.frombuffer(png_of(picture), np.uint8), cv2.IMREAD_UNCHANGED)

    assert np.array_equal(read, picture)


@given(shapes.flatmap(lambda shape: arrays.arrays(np.uint8, (*shape, 3))))
def test_a_color_picture_is_kept_whole(picture: np.ndarray) -> None:
    read = cv2.imdecode(np.frombuffer(png_of(picture), np.uint8), cv2.IMREAD_COLOR_RGB)

    assert np.array_equal(read, picture)


def test_what_repeats_takes_little_room() -> None:
    assert len(png_of(np.full((512, 512, 3), 7, np.uint8))) < 5000
