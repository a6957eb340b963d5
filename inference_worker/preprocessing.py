"""An 8-bit picture in the geometry of a network's input, and the way back.

Training and inference call the same function, so a network sees in service what it learned from.

The whole picture is resized to the network's rows and columns; aspect ratio is not kept. Cropping
would hide the lung bases of a wide radiograph and padding would print the aspect ratio, which
differs from hospital to hospital, as black bars into the input. A plain resize is also exactly
invertible: source column ``(x + 0.5) * columns / network_columns - 0.5`` for network column ``x``,
the pixel-center convention of ``cv2.resize``, so a map over the network's input is brought back by
resizing it to the source's rows and columns.
"""

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""8-bit gray ``[rows, columns]`` or RGB ``[rows, columns, 3]``, 0 is black."""


def to_network_geometry(picture: Picture, rows: int, columns: int) -> Picture:
    """Resize a picture to ``rows`` x ``columns``; area-averaged where it shrinks.

    Raises
    ------
    ValueError
        The picture is not 8-bit ``[rows, columns]`` or ``[rows, columns, 3]``, or is empty.
    """
    if picture.dtype != np.uint8 or picture.size == 0 or not _is_gray_or_rgb(picture.shape):
        raise ValueError(f"8-bit gray or RGB needed, not {picture.dtype} {list(picture.shape)}")
    if picture.shape[:2] == (rows, columns):
        return picture
    shrinks = picture.shape[0] >= rows and picture.shape[1] >= columns
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (columns, rows), interpolation=how), dtype=np.uint8)


def _is_gray_or_rgb(shape: tuple[int, ...]) -> bool:
    rgb_dimensions, rgb_channels = 3, 3
    if len(shape) == rgb_dimensions:
        return shape[2] == rgb_channels
    return len(shape) == rgb_dimensions - 1
