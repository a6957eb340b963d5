"""Pictures that no model should be asked about: too small, empty, or clipped.

These are looked for before the network is asked and are told in words of their own: someone can do
something about them (send the original, choose another window). Whether a sound picture is of the
right kind is the model's domain to say. Truncated pixel data do not come this far: they cannot be
decoded, and that is their reason.
"""

import cv2
import numpy as np
import numpy.typing as npt

from imaging_pixels.render import Picture
from message_contracts.inference import InputSummary
from service_runtime.errors import PermanentError

LEAST_SIDE = 64
"""Rows and columns; a 64 x 64 matrix is the smallest that MR protocols still use."""

SMALLEST_RANGE = 8
"""Gray levels between the 1st and the 99th percentile; below it there is nothing to be seen."""

MOST_WHITE = 0.5
"""Share of pixels at 255. Black may fill most of a picture (air, collimation), white may not."""

MOST_CLIPPED = 0.98
"""Share of pixels at 0 or 255."""


class Refused(PermanentError):
    """The model does not judge this study; the text says why and names no patient.

    That is a result, which goes to the doctor as such, and no fault of ours. ``given`` is what the
    network was given before it refused, if it was given anything.
    """

    def __init__(self, reason: str, given: InputSummary | None = None) -> None:
        super().__init__(reason)
        self.given = given


def quality_fault(picture: Picture) -> str | None:
    """Return why an 8-bit picture, as it is rendered, cannot be judged; ``None`` where it can.

    ``picture`` is gray ``[rows, columns]`` or RGB ``[rows, columns, 3]``, 0 is black.
    """
    rows, columns = picture.shape[:2]
    if min(rows, columns) < LEAST_SIDE:
        return (
            f"The picture is too small: it has {columns} x {rows} pixels, "
            f"at least {LEAST_SIDE} x {LEAST_SIDE} are needed."
        )
    # All that follows is of how many pixels each gray level has, which OpenCV counts fast.
    counts = cv2.calcHist([picture.reshape(rows, -1)], [0], None, [256], [0, 256]).ravel()
    darkest, brightest = _percentiles(counts, (1, 99))
    if brightest - darkest < SMALLEST_RANGE:
        return "The picture is blank: nearly all of its pixels have the same brightness."
    white = float(counts[-1] / picture.size)
    if white > MOST_WHITE:
        return (
            f"The picture is overexposed or its window does not fit: {white:.0%} of its pixels are "
            "plain white."
        )
    clipped = white + float(counts[0] / picture.size)
    if clipped > MOST_CLIPPED:
        return (
            f"The picture is saturated or its window does not fit: {clipped:.0%} of its pixels are "
            "plain black or plain white."
        )
    return None


def _percentiles(
    counts: npt.NDArray[np.float32], percents: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Return the gray levels below which so many percent of the pixels are, interpolated."""
    up_to = np.cumsum(counts, dtype=np.float64)
    ranks = np.array(percents) / 100 * (up_to[-1] - 1)
    lower, upper = (
        np.searchsorted(up_to, each, side="right") for each in (np.floor(ranks), np.ceil(ranks))
    )
    return np.asarray(lower + (ranks - np.floor(ranks)) * (upper - lower))
