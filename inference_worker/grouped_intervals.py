"""Intervals of a classifier's figures by resampling groups. Numpy only.

Groups (patients) are resampled, not pictures: pictures of one patient are alike, and an interval
that forgets it is too narrow. A draw is told by how often each row is in it; a figure is computed
for many draws at once, ``[draws, n]`` counts to ``[draws]`` values.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Figure = Callable[[FloatArray], FloatArray]
REPLICATES = 2000
AT_ONCE = 100
"""Draws that are held in memory together."""
LOWER, UPPER = 2.5, 97.5


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % bootstrap interval (percentiles)."""

    estimate: float
    lower: float
    upper: float

    def as_json(self) -> dict[str, float]:
        """Return the three figures, rounded to four places."""
        return {
            "estimate": round(self.estimate, 4),
            "lower": round(self.lower, 4),
            "upper": round(self.upper, 4),
        }


def grouped_bootstrap(groups: npt.NDArray[np.str_], figure: Figure, seed: int) -> Interval | None:
    """Return a figure over all rows and its interval over resampled groups.

    A draw in which the figure has no value (a class that is not in it) is left out; ``None`` where
    it has none over all rows. A paired difference is a figure too: both sides see the same draws.
    """
    estimate = float(figure(np.ones((1, len(groups))))[0])
    if np.isnan(estimate):
        return None
    drawn = np.concatenate([figure(counts) for counts in _draws(groups, seed)])
    lower, upper = np.nanpercentile(drawn, (LOWER, UPPER))
    return Interval(estimate, float(lower), float(upper))


def _draws(groups: npt.NDArray[np.str_], seed: int) -> Iterator[FloatArray]:
    names, member = np.unique(groups, return_inverse=True)
    random, count = np.random.default_rng(seed), len(names)
    for _ in range(REPLICATES // AT_ONCE):
        chosen = [
            np.bincount(random.integers(count, size=count), minlength=count) for _ in range(AT_ONCE)
        ]
        yield np.stack(chosen)[:, member].astype(np.float64)


def share_of(right: BoolArray, among: BoolArray | None = None) -> Figure:
    """Return the figure: which share of the rows, or of those ``among``, is right."""
    within = np.ones(len(right)) if among is None else among.astype(np.float64)

    def figure(counts: FloatArray) -> FloatArray:
        return _divided(counts @ (within * right), counts @ within)

    return figure


def mean_recall(labels: IntArray, chosen: IntArray) -> Figure:
    """Return the figure: the balanced accuracy, over the classes that a draw has."""
    classes = np.eye(int(labels.max()) + 1)[labels]
    found = classes * (labels == chosen)[:, np.newaxis]

    def figure(counts: FloatArray) -> FloatArray:
        return np.asarray(np.nanmean(_divided(counts @ found, counts @ classes), axis=1))

    return figure


def area(positive: BoolArray, score: FloatArray) -> Figure:
    """Return the figure: the area under the ROC curve (Mann-Whitney; ties count half)."""
    order = np.argsort(score, kind="stable")
    first = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    sides = positive[order]

    def figure(counts: FloatArray) -> FloatArray:
        sorted_counts = counts[:, order]
        with_it = np.add.reduceat(sorted_counts * sides, first, axis=1)
        without = np.add.reduceat(sorted_counts * ~sides, first, axis=1)
        below = np.cumsum(without, axis=1) - without / 2
        pairs = with_it.sum(axis=1) * without.sum(axis=1)
        return _divided((with_it * below).sum(axis=1), pairs)

    return figure


def _divided(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
