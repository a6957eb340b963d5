import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.preprocessing import to_network_geometry


def test_a_picture_of_the_right_size_is_untouched() -> None:
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)

    assert to_network_geometry(picture, 8, 8) is picture


def test_the_whole_picture_is_averaged_when_it_shrinks() -> None:
    picture = np.zeros((100, 200), dtype=np.uint8)
    picture[:50] = 200

    small = to_network_geometry(picture, 4, 4)

    assert small.tolist() == [[200] * 4] * 2 + [[0] * 4] * 2


def test_color_stays_color() -> None:
    picture = np.zeros((40, 30, 3), dtype=np.uint8)
    picture[..., 0] = 90

    assert to_network_geometry(picture, 10, 20)[5, 7].tolist() == [90, 0, 0]


@given(
    st.integers(40, 300),
    st.integers(40, 300),
    st.floats(0.2, 0.8),
    st.floats(0.2, 0.8),
)
def test_a_place_keeps_its_relative_position(
    rows: int, columns: int, down: float, right: float
) -> None:
    row, column = np.mgrid[:rows, :columns]
    distance = ((row + 0.5) / rows - down) ** 2 + ((column + 0.5) / columns - right) ** 2
    picture = (255 * np.exp(-distance / 0.01)).astype(np.uint8)

    small = to_network_geometry(picture, 32, 48)

    row, column = np.mgrid[:32, :48]
    weight = small / small.sum()
    assert ((row + 0.5) * weight).sum() / 32 == pytest.approx(down, abs=0.02)
    assert ((column + 0.5) * weight).sum() / 48 == pytest.approx(right, abs=0.02)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((8, 8), dtype=np.uint16),
        np.zeros((8, 8, 4), dtype=np.uint8),
        np.zeros((8,), dtype=np.uint8),
        np.zeros((0, 8), dtype=np.uint8),
    ],
)
def test_anything_but_8_bit_gray_or_rgb_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="8-bit gray or RGB"):
        to_network_geometry(picture, 8, 8)
