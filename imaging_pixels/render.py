"""An 8-bit picture out of an instance."""

import numpy as np
from pydicom import Dataset

from imaging_pixels.decode import StoredValues, UndecodablePixels, decode
from imaging_pixels.image_pixel import image_pixel
from imaging_pixels.lookup_table import Picture
from imaging_pixels.modality_voi import gray
from imaging_pixels.palette import palette_color

__all__ = ["Picture", "render"]

_BYTE_DEPTH = 8


def render(dataset: Dataset, frame: int = 0) -> Picture:
    """Return one frame, counted from 0, as a screen should show it.

    8-bit gray ``[rows, columns]`` or RGB ``[rows, columns, 3]``; 0 is black.

    Raises
    ------
    UndecodablePixels
        As :func:`imaging_pixels.decode.decode`, and where a palette is missing, or a palette or a
        lookup table broken.
    """
    stored = decode(dataset, frame)
    image = image_pixel(dataset)
    if image.photometric_interpretation == "PALETTE COLOR":
        return _palette_color(dataset, stored)
    if image.is_color:
        return _eight_bits(stored, image.bits_stored)
    try:
        return gray(dataset, stored, frame)
    except Exception as error:
        # A broken table or window may be broken in many ways, and the texts may quote it.
        raise UndecodablePixels("what says how its pixels are shown is broken") from error


def _palette_color(dataset: Dataset, stored: StoredValues) -> Picture:
    try:
        return palette_color(dataset, stored)
    except Exception as error:
        raise UndecodablePixels("the color palette is missing or broken") from error


def _eight_bits(colored: StoredValues, bits: int) -> Picture:
    """Return the upper 8 of the bits stored; fewer bits are spread over 8."""
    if bits < _BYTE_DEPTH:
        spread: Picture = np.rint(colored * (255.0 / (2**bits - 1))).astype(np.uint8)
        return spread
    shift = bits - _BYTE_DEPTH
    return np.ascontiguousarray(colored >> shift if shift else colored, dtype=np.uint8)
