"""Where a frame lies in the patient, and how its pixels are shaped. Pure.

Of a classic instance the attributes stand in it, of an enhanced multi-frame one in its functional
groups, a frame's own before the shared ones (PS3.3 §C.7.6.16).
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from pydicom import Dataset

_LEAST_COSINE = 0.001
"""A smaller one is rounding, not a direction."""
_MOST_ASPECT = 8.0
_UNIT_TOLERANCE = 0.01
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
_TOWARD = (("L", "R"), ("P", "A"), ("H", "F"))
"""Of x, y and z (PS3.3 §C.7.6.2.1.1): where it grows, and where it falls."""


@dataclass(frozen=True)
class Plane:
    """A frame in the patient-based coordinate system of its frame of reference."""

    frame_of_reference_uid: str
    position: tuple[float, ...]
    """Of the center of the first pixel: x, y, z in mm."""
    orientation: tuple[float, ...]
    """Direction cosines of the first row, then of the first column."""
    spacing: tuple[float, ...]
    """Between rows, then between columns, in mm."""
    thickness_mm: float | None


def plane_of(source: Dataset, frame: int = 0) -> Plane | None:
    """Return where a frame, counted from 0, lies; ``None`` where it does not say, or wrongly."""
    uid = str(source.get("FrameOfReferenceUID") or "")
    position = _numbers(_own(source, frame, "PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = _orientation(source, frame)
    measures = ("PixelMeasuresSequence", "PixelSpacing")
    spacing = _numbers(_own(source, frame, *measures), 2)
    if not uid or position is None or orientation is None or spacing is None or min(spacing) <= 0:
        return None
    thickness = _numbers(_own(source, frame, measures[0], "SliceThickness"), 1)
    return Plane(
        uid,
        position,
        orientation,
        spacing,
        thickness[0] if thickness and thickness[0] > 0 else None,
    )


def pixel_aspect(source: Dataset, frame: int = 0) -> float:
    """Return the height of a pixel over its width; 1 where the source does not say, or absurdly."""
    for keyword in _SPACINGS:
        found = _numbers(_own(source, frame, "PixelMeasuresSequence", keyword), 2)
        if found is not None and min(found) > 0:
            aspect = found[0] / found[1]
            return aspect if 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT else 1.0
    return 1.0


def patient_orientation(source: Dataset, frame: int = 0) -> tuple[str, str] | None:
    """Return the Patient Orientation (0020,0020) that the direction cosines of a frame mean."""
    cosines = _orientation(source, frame)
    return None if cosines is None else (_letters(cosines[:3]), _letters(cosines[3:]))


def _letters(cosines: tuple[float, ...]) -> str:
    """Name a direction by the anatomical ones that it has a share of, the greatest first."""
    by_size = sorted(zip(cosines, _TOWARD, strict=True), key=lambda pair: -abs(pair[0]))
    return "".join(
        grows if cosine > 0 else falls
        for cosine, (grows, falls) in by_size
        if abs(cosine) > _LEAST_COSINE
    )


def _orientation(source: Dataset, frame: int) -> tuple[float, ...] | None:
    cosines = _numbers(
        _own(source, frame, "PlaneOrientationSequence", "ImageOrientationPatient"), 6
    )
    if cosines is None:
        return None
    row, column = cosines[:3], cosines[3:]
    products = (
        sum(each**2 for each in row) - 1,
        sum(each**2 for each in column) - 1,
        sum(one * other for one, other in zip(row, column, strict=True)),
    )
    return cosines if max(map(abs, products)) < _UNIT_TOLERANCE else None


def _own(source: Dataset, frame: int, group: str, keyword: str) -> Any:
    """Return an attribute of a frame's functional group, or else of the instance."""
    try:
        per_frame = source.get("PerFrameFunctionalGroupsSequence") or ()
        shared = source.get("SharedFunctionalGroupsSequence") or ()
        for groups in (*per_frame[frame : frame + 1], *shared[:1]):
            for item in groups.get(group) or ():
                if keyword in item:
                    return item.get(keyword)
        return source.get(keyword)
    except Exception:  # noqa: BLE001
        # An element that is cut off, or claims another VR, fails in many ways.
        return None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return so many finite numbers, or ``None`` where the value is anything else."""
    try:
        numbers = tuple(float(each) for each in ([value] if count == 1 else value))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(isfinite, numbers)) else None
