"""An 8-bit picture out of an instance."""

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut

from imaging_pixels.decode import StoredValues, UndecodablePixels, decode
from imaging_pixels.modality_voi import gray

Picture = npt.NDArray[np.uint8]
"""8-bit gray ``[rows, columns]`` or RGB ``[rows, columns, 3]``, 0 is black."""

_BYTE_DEPTH = 8


def render(dataset: Dataset, frame: int = 0) -> Picture:
    """Return one frame, counted from 0, as a screen should show it.

    Raises
    ------
    UndecodablePixels
        As :func:`imaging_pixels.decode.decode`, and where a palette is missing, or a palette or a
        lookup table broken.
    """
    stored = decode(dataset, frame)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _palette_color(dataset, stored)
    if stored.ndim == 3:  # noqa: PLR2004 - rows, columns, samples
        return _eight_bits(stored, int(dataset.get("BitsStored") or dataset.BitsAllocated))
    try:
        return gray(dataset, stored, frame)
    except Exception as error:
        # A broken table or window may be broken in many ways, and the texts may quote it.
        raise UndecodablePixels("what says how its pixels are shown is broken") from error


def _palette_color(dataset: Dataset, stored: StoredValues) -> Picture:
    try:
        colored = apply_color_lut(stored, dataset)
    except Exception as error:
        raise UndecodablePixels("the color palette is missing or broken") from error
    # The palette's own depth decides, not that of the index (PS3.3 §C.7.6.3.1.5).
    return _eight_bits(colored[..., :3], colored.dtype.itemsize * 8)


def _eight_bits(colored: StoredValues, bits: int) -> Picture:
    shift = bits - _BYTE_DEPTH
    return np.ascontiguousarray(colored >> shift if shift > 0 else colored, dtype=np.uint8)
