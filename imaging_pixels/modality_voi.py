"""From stored values to what is shown: the grayscale pipeline of PS3.3 §C.11.

Stored values go through the modality transformation (to CT numbers, optical density and so on),
then through the values of interest (a window or a table) to a fraction of full brightness, and are
inverted at last where the Photometric Interpretation or the Presentation LUT Shape asks for it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage

from imaging_pixels.decode import StoredValues

Values = npt.NDArray[np.float64]
Transformation = Callable[[Values], Values]

_BYTE_DEPTH = 8
_LUT_ITEMS_OF_ZERO = 65536
_MAY_HAVE_LOG_PIXELS = {XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage}


@dataclass(frozen=True)
class Window:
    """A VOI window (PS3.3 §C.11.2.1.2), in the units that the modality transformation gives."""

    center: float
    width: float
    function: str = "LINEAR"

    def apply(self, values: Values) -> Values:
        """Return fractions of full brightness, 0 to 1."""
        if self.function == "SIGMOID":
            # Beyond 60 the exponential says nothing more and only overflows.
            exponent = np.clip(-4.0 * (values - self.center) / self.width, -60.0, 60.0)
            return np.reciprocal(1.0 + np.exp(exponent))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.center) / self.width + 0.5, 0.0, 1.0)
        center = self.center - 0.5
        if self.width == 1:
            return (values > center).astype(np.float64)
        return np.clip((values - center) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class LookUpTable:
    """A Modality or VOI LUT: a value for every input from ``first`` on (PS3.3 §C.11.1.1)."""

    first: int
    entries: Values
    bits: int

    def apply(self, values: Values) -> Values:
        """Look every value up; what lies before the first or after the last entry takes that."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        looked_up: Values = self.entries[index.astype(np.int64)]
        return looked_up


def gray(dataset: Dataset, stored: StoredValues, frame: int = 0) -> npt.NDArray[np.uint8]:
    """Return stored values ``[rows, columns]`` as a screen should show them, 0 black, 255 white.

    Of several VOI LUTs or windows the first is taken, and a LUT before a window. Where there is
    neither, 8-bit values are shown as they are and others between the least and the greatest in
    the frame. Padding (PS3.3 §C.7.5.1.1.2) is black and counts for nothing. The macros of
    multi-frame functional groups (PS3.3 §C.7.6.16) go before attributes of the data set.
    """
    background = _padding(dataset, stored)
    window_range = _voi(dataset, stored, frame, background)
    modality = modality_transformation(dataset, frame)
    inverted = _is_inverted(dataset)

    def shown(values: StoredValues) -> npt.NDArray[np.uint8]:
        fraction = window_range(modality(values.astype(np.float64)))
        if inverted:
            fraction = 1.0 - fraction
        return np.rint(fraction * 255.0).astype(np.uint8)

    picture = _each_value_once(shown, stored)
    if background is not None:
        picture[background] = 0
    return picture


def modality_transformation(dataset: Dataset, frame: int = 0) -> Transformation:
    """Return what makes CT numbers and the like of stored values (PS3.3 §C.11.1)."""
    for source in _sources(dataset, frame, "PixelValueTransformationSequence"):
        table = _table(source, "ModalityLUTSequence")
        if table is not None and not _is_only_for_measuring(dataset):
            return table.apply
        slope, intercept = _number(source, "RescaleSlope"), _number(source, "RescaleIntercept")
        if slope:
            return lambda values: values * slope + (intercept or 0.0)
    return lambda values: values


def _voi(
    dataset: Dataset, stored: StoredValues, frame: int, background: npt.NDArray[np.bool_] | None
) -> Transformation:
    """Return what makes fractions of full brightness of modality values (PS3.3 §C.11.2)."""
    for source in _sources(dataset, frame, "FrameVOILUTSequence"):
        table = _table(source, "VOILUTSequence")
        if table is not None:
            full = float(2**table.bits - 1)
            return lambda values: np.clip(table.apply(values) / full, 0.0, 1.0)
        window = _window(source)
        if window is not None:
            return window.apply
    return _full_range(dataset, stored, frame, background)


def _full_range(
    dataset: Dataset, stored: StoredValues, frame: int, background: npt.NDArray[np.bool_] | None
) -> Transformation:
    modality = modality_transformation(dataset, frame)
    if stored.dtype.kind == "u" and int(dataset.get("BitsStored") or 16) <= _BYTE_DEPTH:
        ends = np.array([0.0, 2.0 ** int(dataset.BitsStored) - 1.0])
    else:
        picture = stored if background is None else stored[~background]
        present = picture[np.isfinite(picture)]
        ends = np.array([present.min(), present.max()] if present.size else [0, 1], np.float64)
    # A table need not rise from end to end, and a slope may be negative.
    low, high = sorted(modality(ends).tolist())
    if high <= low:
        return np.zeros_like
    return lambda values: np.clip((np.nan_to_num(values) - low) / (high - low), 0.0, 1.0)


def _sources(dataset: Dataset, frame: int, macro: str) -> Iterator[Dataset]:
    """Yield where a transformation may stand: this frame's macro, the shared one, the data set."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    groups = [*per_frame[frame : frame + 1], *shared[:1]]
    for group in groups:
        yield from (group.get(macro) or [])[:1]
    yield dataset


def _window(source: Dataset) -> Window | None:
    center, width = _number(source, "WindowCenter"), _number(source, "WindowWidth")
    function = str(source.get("VOILUTFunction") or "LINEAR")
    if center is None or width is None:
        return None
    # PS3.3 §C.11.2.1.2: LINEAR needs a width of at least 1, the others one above 0.
    if width <= 0 or (width < 1 and function == "LINEAR"):
        return None
    return Window(center, width, function)


def _number(source: Dataset, keyword: str) -> float | None:
    """Return the first value of a DS or FD element; ``None`` where it is absent or no number."""
    try:
        value: Any = source.get(keyword)
        if isinstance(value, MultiValue | list):
            value = value[0] if value else None
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _table(source: Dataset, keyword: str) -> LookUpTable | None:
    items = source.get(keyword) or []
    if not items or "LUTDescriptor" not in items[0] or "LUTData" not in items[0]:
        return None
    count, first, bits = (int(value) for value in items[0].LUTDescriptor)
    count = count or _LUT_ITEMS_OF_ZERO
    data = items[0]["LUTData"].value
    if isinstance(data, bytes):
        # VR OW; 8-bit entries may be packed two to a word (PS3.3 §C.11.1.1).
        order = "<" if items[0].original_encoding[1] is not False else ">"
        kind = "u1" if len(data) < 2 * count else f"{order}u2"
        data = np.frombuffer(data, kind)
    entries = np.asarray(data, dtype=np.float64).reshape(-1)[:count]
    if not entries.size or not 1 <= bits <= 16:  # noqa: PLR2004 - PS3.3 §C.11.1.1
        return None
    return LookUpTable(first, entries, bits)


def _padding(dataset: Dataset, stored: StoredValues) -> npt.NDArray[np.bool_] | None:
    """Return where there is padding (PS3.3 §C.7.5.1.1.2), or ``None`` where none is declared."""
    value = _number(dataset, "PixelPaddingValue")
    if value is None or stored.dtype.kind not in "iu":
        return None
    limit = _number(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    return (stored >= low) & (stored <= high)


def _is_inverted(dataset: Dataset) -> bool:
    """MONOCHROME1 and INVERSE say the same, once or twice (PS3.3 §C.7.6.3.1.2, §C.11.6)."""
    photometric_interpretation = str(dataset.get("PhotometricInterpretation"))
    return (
        photometric_interpretation == "MONOCHROME1"
        or str(dataset.get("PresentationLUTShape")) == "INVERSE"
    )


def _is_only_for_measuring(dataset: Dataset) -> bool:
    """Tell whether the Modality LUT is to be left out of display (PS3.3 §C.8.7.1.1.2)."""
    return dataset.get("SOPClassUID") in _MAY_HAVE_LOG_PIXELS


def _each_value_once(
    shown: Callable[[StoredValues], npt.NDArray[np.uint8]], stored: StoredValues
) -> npt.NDArray[np.uint8]:
    """Apply a function of one value to a picture, by a table where that is the shorter way."""
    if stored.dtype.kind in "iu" and stored.size:
        least, greatest = int(stored.min()), int(stored.max())
        if greatest - least < min(stored.size, 2**16):
            table = shown(np.arange(least, greatest + 1))
            return table[stored.astype(np.int64) - least]
    return shown(stored)
