"""Where the cells of a feature map lie in the picture that the network was given. Pure.

A cell is centered on what it sees. Which that is, the paddings and strides of the layers below
decide: with ``valid`` padding the cells keep away from the margins, and with an uneven padding all
of them are moved. Drawn as if they divided the picture evenly, a heat map would be off by up to a
cell, a seventh of a usual network's picture.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

_TAPS = 4
_SHARPNESS = -0.5
"""Of the cubic convolution (Keys, IEEE TASSP 29, 1981): exact for quadratic surfaces."""


@dataclass(frozen=True)
class Axis:
    """The centers of the cells along one side, in fractions of it: 0 begins the first pixel."""

    first: float
    step: float

    @classmethod
    def even(cls, count: int) -> "Axis":
        """Return so many cells that divide the side evenly."""
        return cls(0.5 / count, 1 / count)

    @lru_cache(maxsize=32)  # noqa: B019 - few and small, and the same for all slices of a series
    def weights(self, count: int, size: int) -> Float32Array:
        """Return what each of ``count`` cells weighs in each of ``size`` pixels: [size, count].

        Pixel centers are ``(x + 0.5) / size``. Beyond the outermost cells their value is kept.
        """
        place = ((np.arange(size) + 0.5) / size - self.first) / self.step
        below = np.floor(place)
        pixel = np.arange(size)
        weights = np.zeros((size, count), dtype=np.float32)
        for tap in range(-1, _TAPS - 1):
            cell = np.clip(below + tap, 0, count - 1).astype(np.intp)
            np.add.at(weights, (pixel, cell), _cubic(np.abs(place - below - tap)))
        return weights


@dataclass(frozen=True)
class CellGrid:
    """The cells of a map ``[rows, columns]``."""

    rows: Axis
    columns: Axis

    @classmethod
    def even(cls, rows: int, columns: int) -> "CellGrid":
        """Return cells that divide the picture evenly."""
        return cls(Axis.even(rows), Axis.even(columns))

    def over(self, cells: Float32Array, rows: int, columns: int) -> Float32Array:
        """Bring values of cells to the pixels of a picture ``[rows, columns]``, kept in 0 to 1.

        The network was given the whole picture, resized: fractions of it are the same before and
        after that, whatever its size and aspect ratio.
        """
        down = self.rows.weights(cells.shape[0], rows)
        right = self.columns.weights(cells.shape[1], columns)
        # Not by a BLAS, NumPy's or OpenCV's: it would wake threads for so little, and they wait
        # busily for more.
        along = np.einsum("rc,xc->rx", cells.astype(np.float32), right)
        over = np.asarray(np.einsum("yr,rx->yx", down, along), np.float32)
        return np.clip(over, 0.0, 1.0, out=over)


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a = _SHARPNESS
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))  # noqa: PLR2004
