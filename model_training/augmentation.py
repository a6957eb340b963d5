"""Light augmentation: what another operator, detector, camera or window would have changed."""

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from inference_worker.preprocessing import Picture

Kind = Literal["none", "radiograph", "any_orientation"]
ROTATION_DEG = {"radiograph": 8.0, "any_orientation": 180.0}
SCALE = 0.10
"""Rows and columns are scaled apart, so that the aspect ratio of a hospital is no sure sign."""
SHIFT = 0.06
GAMMA = 0.25
CONTRAST = 0.15
BRIGHTNESS = 20.0
COLOR_CAST = 0.05
"""Each color is brighter or darker by so much on its own: lamps and white balance differ."""


def augment(pictures: Picture, random: np.random.Generator, kind: Kind = "radiograph") -> Picture:
    """Return each of ``[n, rows, columns]`` or ``[n, rows, columns, 3]`` as it might have been.

    Turned, scaled, shifted, mirrored left to right and re-windowed; ``any_orientation`` turns as
    far as it likes and fills what comes into view with what lay at the border.
    """
    if kind == "none":
        return pictures
    border = cv2.BORDER_REFLECT_101 if kind == "any_orientation" else cv2.BORDER_CONSTANT
    changed = []
    for picture in pictures:
        matrix = _movement(picture.shape[:2], random, ROTATION_DEG[kind])
        moved = cv2.warpAffine(
            picture, matrix, picture.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=border
        )
        changed.append(_rewindowed(np.asarray(moved, dtype=np.uint8), random))
    return np.stack(changed)


def _movement(
    shape: tuple[int, ...], random: np.random.Generator, rotation_deg: float
) -> npt.NDArray[np.float64]:
    rows, columns = shape
    angle = np.deg2rad(random.uniform(-rotation_deg, rotation_deg))
    scale_x, scale_y = random.uniform(1 - SCALE, 1 + SCALE, size=2)
    scale_x *= random.choice((-1.0, 1.0))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([scale_x, scale_y])
    center = np.array([(columns - 1) / 2, (rows - 1) / 2])
    shift = random.uniform(-SHIFT, SHIFT, size=2) * (columns, rows)
    return np.column_stack([linear, center + shift - linear @ center])


def _rewindowed(picture: Picture, random: np.random.Generator) -> Picture:
    gamma = np.exp(random.uniform(-GAMMA, GAMMA))
    contrast = random.uniform(1 - CONTRAST, 1 + CONTRAST)
    brightness = random.uniform(-BRIGHTNESS, BRIGHTNESS)
    level = 255.0 * (np.arange(256) / 255.0) ** gamma
    level = (level - 127.5) * contrast + 127.5 + brightness
    gray_dimensions = 2
    if picture.ndim == gray_dimensions:
        return _looked_up(picture, level)
    gains = np.asarray(random.uniform(1 - COLOR_CAST, 1 + COLOR_CAST, picture.shape[-1]))
    colors = [
        _looked_up(picture[..., place], level * gains[place]) for place in range(picture.shape[-1])
    ]
    return np.stack(colors, axis=-1)


def _looked_up(picture: Picture, level: npt.NDArray[np.float64]) -> Picture:
    table = np.clip(level, 0, 255).astype(np.uint8)
    return np.asarray(table[picture], dtype=np.uint8)
