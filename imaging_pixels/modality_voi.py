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

from imaging_pixels.lookup_table import Picture, Values, each_value_once, look_up_table
from imaging_pixels.stored_bits import StoredValues

Mask = npt.NDArray[np.bool_]
Transformation = Callable[[Values], Values]

_BYTE_DEPTH = 8
_SINGLE_BYTES = 4
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


def gray(dataset: Dataset, stored: StoredValues, frame: int = 0) -> Picture:
    """Return stored values ``[rows, columns]`` as a screen should show them, 0 black, 255 white.

    Of several VOI LUTs or windows the first is taken, and a LUT before a window. Where there is
    neither, up to 8 bits are shown as they are and others between the least and the greatest in
    the frame. Padding (PS3.3 §C.7.5.1.1.2) and what is no number are black and count for nothing.
    The macros of multi-frame functional groups (PS3.3 §C.7.6.16) go before attributes of the data
    set.
    """
    with np.errstate(all="ignore"):
        background = _background(dataset, stored)
        voi = _voi(dataset, stored, frame, background)
        modality = modality_transformation(dataset, frame)
        inverted = _is_inverted(dataset)

        def shown(values: StoredValues) -> Picture:
            fraction = np.nan_to_num(voi(modality(values.astype(np.float64))))
            if inverted:
                fraction = 1.0 - fraction
            return np.rint(fraction * 255.0).astype(np.uint8)

        picture = each_value_once(shown, stored)
    if background is not None:
        picture[background] = 0
    return picture


def modality_transformation(dataset: Dataset, frame: int = 0) -> Transformation:
    """Return what makes CT numbers and the like of stored values (PS3.3 §C.11.1)."""
    for source in _sources(dataset, frame, "PixelValueTransformationSequence"):
        is_signed = dataset.get("PixelRepresentation") == 1
        table = look_up_table(source, "ModalityLUTSequence", is_signed=is_signed)
        if table is not None and not _is_only_for_measuring(dataset):
            return table.apply
        slope, intercept = _number(source, "RescaleSlope"), _number(source, "RescaleIntercept")
        if slope:
            return lambda values: values * slope + (intercept or 0.0)
    return lambda values: values


def _voi(
    dataset: Dataset, stored: StoredValues, frame: int, background: Mask | None
) -> Transformation:
    """Return what makes fractions of full brightness of modality values (PS3.3 §C.11.2)."""
    modality = modality_transformation(dataset, frame)
    ends = _ends(stored)
    # PS3.3 §C.11.2.1.1: as signed as what the modality transformation can give.
    is_signed = bool(modality(ends).min() < 0)
    for source in _sources(dataset, frame, "FrameVOILUTSequence"):
        table = look_up_table(source, "VOILUTSequence", is_signed=is_signed)
        if table is not None:
            full = float(2**table.bits - 1)
            return lambda values: np.clip(table.apply(values) / full, 0.0, 1.0)
        window = _window(source)
        if window is not None:
            return window.apply
    bits = dataset.get("BitsStored") or dataset.get("BitsAllocated") or _BYTE_DEPTH
    if stored.dtype.kind == "u" and bits <= _BYTE_DEPTH:
        ends = np.array([0.0, 2.0**bits - 1.0])
    else:
        present = stored[np.isfinite(stored)] if background is None else stored[~background]
        ends = np.array([present.min(), present.max()] if present.size else [0, 1], np.float64)
    # A table need not rise from end to end, and a slope may be negative.
    low, high = sorted(modality(ends).tolist())
    if high <= low:
        return np.zeros_like
    return lambda values: np.clip((values - low) / (high - low), 0.0, 1.0)


def _ends(stored: StoredValues) -> Values:
    """Return the least and the greatest value that cells of this type can hold."""
    limits = np.finfo(stored.dtype) if stored.dtype.kind == "f" else np.iinfo(stored.dtype)
    return np.array([limits.min, limits.max], np.float64)


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


def _background(dataset: Dataset, stored: StoredValues) -> Mask | None:
    """Return where there is padding or no number, or ``None`` where there can be neither.

    Integers have Pixel Padding Value, floating point numbers padding of their own kind (PS3.3
    §C.7.5.1.1.2, §C.7.6.24, §C.7.6.25), and each of them a range of it.
    """
    if stored.dtype.kind == "f":
        kind = "Float" if stored.dtype.itemsize == _SINGLE_BYTES else "DoubleFloat"
        padding = _padding(dataset, stored, f"{kind}PixelPadding")
        return ~np.isfinite(stored) if padding is None else padding | ~np.isfinite(stored)
    return _padding(dataset, stored, "PixelPadding")


def _padding(dataset: Dataset, stored: StoredValues, keyword: str) -> Mask | None:
    value = _number(dataset, f"{keyword}Value")
    limit = _number(dataset, f"{keyword}RangeLimit")
    if value is None:
        return None
    low, high = sorted(
        _as_stored(each, stored) for each in (value, value if limit is None else limit)
    )
    return np.asarray((stored >= low) & (stored <= high))


def _as_stored(value: float, stored: StoredValues) -> float:
    """Return a value that was given as unsigned, for signed values, as what was meant."""
    if stored.dtype.kind != "i" or value <= np.iinfo(stored.dtype).max:
        return value
    return value - 2.0 ** (8 * stored.dtype.itemsize)


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
