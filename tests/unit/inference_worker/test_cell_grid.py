import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.cell_grid import Axis, CellGrid


def a_map(row: int, column: int, side: int = 7) -> np.ndarray:
    cells = np.zeros((side, side), dtype=np.float32)
    cells[row, column] = 1
    return cells


@pytest.mark.parametrize(("rows", "columns"), [(700, 1400), (1400, 700), (71, 64)])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 3), (5, 1), (6, 6)])
def test_a_cell_comes_back_to_its_place(rows: int, columns: int, row: int, column: int) -> None:
    over = CellGrid.even(7, 7).over(a_map(row, column), rows, columns)

    down, right = np.unravel_index(over.argmax(), over.shape)
    assert over.shape == (rows, columns)
    assert down * 7 // rows == row
    assert right * 7 // columns == column
    assert over.min() >= 0
    assert over.max() <= 1


def test_the_map_is_symmetric_about_the_cell_it_comes_from() -> None:
    over = CellGrid.even(7, 7).over(a_map(3, 3), 700, 700)

    np.testing.assert_allclose(over, over[::-1, ::-1], atol=1e-6)


@given(st.floats(0.01, 0.3), st.floats(0.02, 0.2), st.integers(2, 12), st.integers(1, 400))
def test_what_is_even_stays_even_and_is_never_made_more(
    first: float, step: float, count: int, size: int
) -> None:
    weights = Axis(first, step).weights(count, size)

    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


@given(st.floats(0, 0.3), st.floats(0.02, 0.1))
def test_a_slope_between_the_cells_is_reproduced(first: float, step: float) -> None:
    count, size = 8, 1000
    at_cells = first + step * np.arange(count)

    over = Axis(first, step).weights(count, size) @ at_cells

    pixels = (np.arange(size) + 0.5) / size
    inside = (pixels > at_cells[1]) & (pixels < at_cells[-2])
    np.testing.assert_allclose(over[inside], pixels[inside], atol=1e-5)


def test_cells_that_begin_inside_the_picture_are_not_stretched_to_its_margin() -> None:
    axis = Axis(0.25, 0.1)

    over = CellGrid(axis, axis).over(a_map(2, 4), 1000, 1000)

    down, right = np.unravel_index(over.argmax(), over.shape)
    assert down == pytest.approx(449.5, abs=1)
    assert right == pytest.approx(649.5, abs=1)
