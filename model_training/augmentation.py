"""Light augmentation: what another radiographer, detector or window would have changed."""

import cv2
import numpy as np

from inference_worker.preprocessing import Picture

ROTATION_DEG = 8.0
SCALE = 0.10
"""Rows and columns are scaled apart, so that the aspect ratio of a hospital is no sure sign."""
SHIFT = 0.06
GAMMA = 0.25
CONTRAST = 0.15
BRIGHTNESS = 20.0


def augment(pictures: Picture, random: np.random.Generator) -> Picture:
    """Return each of ``[n, rows, columns]`` turned, scaled, shifted, mirrored and re-windowed."""
    return np.stack([_augment_one(picture, random) for picture in pictures])


def _augment_one(picture: Picture, random: np.random.Generator) -> Picture:
    rows, columns = picture.shape
    angle = np.deg2rad(random.uniform(-ROTATION_DEG, ROTATION_DEG))
    scale_x, scale_y = random.uniform(1 - SCALE, 1 + SCALE, size=2)
    scale_x *= random.choice((-1.0, 1.0))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([scale_x, scale_y])
    center = np.array([(columns - 1) / 2, (rows - 1) / 2])
    shift = random.uniform(-SHIFT, SHIFT, size=2) * (columns, rows)
    matrix = np.column_stack([linear, center + shift - linear @ center])
    moved = cv2.warpAffine(
        picture, matrix, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    gamma = np.exp(random.uniform(-GAMMA, GAMMA))
    contrast = random.uniform(1 - CONTRAST, 1 + CONTRAST)
    brightness = random.uniform(-BRIGHTNESS, BRIGHTNESS)
    level = 255.0 * (np.arange(256) / 255.0) ** gamma
    table = np.clip((level - 127.5) * contrast + 127.5 + brightness, 0, 255).astype(np.uint8)
    return np.asarray(table[np.asarray(moved)], dtype=np.uint8)
