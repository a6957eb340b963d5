"""Figures that models are watched by. Pure."""

import math
from collections.abc import Sequence
from enum import StrEnum

from pydantic import BaseModel

_Z_95 = 1.959964
_CHI_SQUARE_95 = 16.919
"""95th percentile of the chi-square distribution with nine degrees of freedom: ten parts."""
PARTS = 10
MODERATE, LARGE = 0.1, 0.25
"""By the usual rule of thumb (Siddiqi, Credit Risk Scorecards, 2006)."""


class Share(BaseModel):
    """A part of a whole, with its 95 % interval (Wilson, J Am Stat Assoc 22, 1927)."""

    count: int
    of: int
    share: float
    low: float
    high: float


class Shift(StrEnum):
    """Whether a distribution has moved, beyond what chance alone would do."""

    NONE = "none"
    MODERATE = "moderate"
    LARGE = "large"


class Drift(BaseModel):
    """How the distances of what a model was given lie among those of what it learned from."""

    compared: int
    """Studies whose distance is known."""
    usual: int
    """Pictures that it is compared with."""
    psi: float
    """Population stability index over ten parts that usually have the same size; 0 is equal."""
    psi_by_chance: float
    """The 95th percentile of what it would be without any drift at these numbers (Yurdakul and
    Naranjo, J Risk Model Validation 14(4), 2020)."""
    shift: Shift
    parts: tuple[int, ...]
    """How many studies lie in each part, the nearest first: a tenth would be usual."""


def share(count: int, of: int) -> Share | None:
    """Return a share with its interval; ``None`` of nothing."""
    if not of:
        return None
    part, squared = count / of, _Z_95**2
    center = (part + squared / (2 * of)) / (1 + squared / of)
    half = _Z_95 * math.sqrt(part * (1 - part) / of + squared / (4 * of**2)) / (1 + squared / of)
    return Share(
        count=count,
        of=of,
        share=round(part, 6),
        low=round(max(0.0, center - half), 6),
        high=round(min(1.0, center + half), 6),
    )


def drift(parts: Sequence[int], usual: int) -> Drift | None:
    """Hold the counts of `PARTS` parts against parts of equal size; ``None`` of nothing.

    An empty part would make the index infinite: each part is given half a study.
    """
    compared = sum(parts)
    if not compared:
        return None
    expected = 1 / PARTS
    shares = [(count + 0.5) / (compared + 0.5 * PARTS) for count in parts]
    psi = sum((each - expected) * math.log(each / expected) for each in shares)
    by_chance = _CHI_SQUARE_95 * (1 / compared + 1 / usual)
    shift = Shift.NONE
    if psi > by_chance and psi > MODERATE:
        shift = Shift.LARGE if psi > LARGE else Shift.MODERATE
    return Drift(
        compared=compared,
        usual=usual,
        psi=round(psi, 6),
        psi_by_chance=round(by_chance, 6),
        shift=shift,
        parts=tuple(parts),
    )


def spread(count: int, total: float, squares: float) -> tuple[float, float] | None:
    """Return mean and standard deviation; ``None`` of nothing."""
    if not count:
        return None
    mean = total / count
    return mean, math.sqrt(max(0.0, squares / count - mean**2))
