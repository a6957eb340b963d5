"""Probabilities that mean what they say, and the threshold below which nothing is said."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_training.folds import grouped_folds
from model_training.linear_head import softmax

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
LEAST_SLOPE = 0.25
"""A network that knew less than nothing would otherwise have its ranking of classes reversed."""
STEPS = 100
SMALL = 1e-9
"""A gain of the loss after which nothing is left to find."""
CROSSED = 5
THRESHOLDS = np.round(np.arange(0.25, 0.96, 0.01), 2)


@dataclass(frozen=True)
class Held:
    """What one network said of pictures that it has not learned from."""

    scores: FloatArray
    """Before the softmax, ``[n, classes]``; there may be none."""
    labels: IntArray

    def only(self, rows: npt.NDArray[np.bool_]) -> "Held":
        """Return some of the rows."""
        return Held(self.scores[rows], self.labels[rows])


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities: ``softmax(slope * scores + offsets)``.

    Bias-corrected temperature scaling (Alexandari et al., Maximum Likelihood with Bias-Corrected
    Calibration is Hard-To-Beat at Label Shift Adaptation, ICML 2020). Without offsets it is the
    temperature scaling of Guo et al. (ICML 2017).
    """

    slope: float
    offsets: FloatArray
    """``[classes]``; they add up to zero."""

    @property
    def temperature(self) -> float:
        """What scores are divided by."""
        return 1 / self.slope

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Return probabilities ``[n, classes]``."""
        return softmax(self.slope * scores + self.offsets)


def fit_calibration(own: Held, others: Sequence[Held] = ()) -> Calibration:
    """Return the calibration of a network, from its own held-out rows and those of its like.

    Networks of one recipe that have learned from other patients are sure in the same measure, so
    that all of them have a say in the slope. Which classes one leans to is its own and differs from
    each to each, so that only its own rows have a say in its offsets; the others are fitted beside
    it with offsets of their own. Slope and offsets are the most probable ones where beforehand they
    lie around 1 and 0, with a deviation of 1: a few rows move them little. Newton's method; the
    loss is convex.
    """
    networks = (own, *others)
    slope, offsets = 1.0, np.zeros((len(networks), own.scores.shape[1]))
    loss = _loss(networks, slope, offsets)
    for _ in range(STEPS):
        gradient, curvature = _derivatives(networks, slope, offsets)
        free = np.ones(len(gradient), dtype=np.bool_)
        free[0] = slope > LEAST_SLOPE or gradient[0] < 0
        step = np.zeros(len(gradient))
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        length = 1.0
        while True:
            tried = max(slope - length * step[0], LEAST_SLOPE)
            moved = offsets - length * step[1:].reshape(offsets.shape)
            after = _loss(networks, tried, moved)
            if after <= loss or length < SMALL:
                break
            length /= 2
        gained = loss - after
        if gained > 0:
            slope, offsets, loss = tried, moved, after
        if gained < SMALL:
            break
    return Calibration(slope, offsets[0])


def _loss(networks: Sequence[Held], slope: float, offsets: FloatArray) -> float:
    found = ((slope - 1) ** 2 + np.sum(offsets**2)) / 2
    for held, own in zip(networks, offsets, strict=True):
        raised = slope * held.scores + own
        highest = raised.max(axis=1, initial=-np.inf)
        total = highest + np.log(np.exp(raised - highest[:, np.newaxis]).sum(axis=1))
        found += np.sum(total - raised[np.arange(len(raised)), held.labels])
    return float(found)


def _derivatives(
    networks: Sequence[Held], slope: float, offsets: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return gradient and curvature, the slope first, then the offsets of each network."""
    classes = offsets.shape[1]
    gradient = np.concatenate([[slope - 1], offsets.ravel()])
    curvature = np.eye(len(gradient))
    for number, held in enumerate(networks):
        place = slice(1 + number * classes, 1 + (number + 1) * classes)
        found = softmax(slope * held.scores + offsets[number])
        miss = found - np.eye(classes)[held.labels]
        mean = np.sum(found * held.scores, axis=1, keepdims=True)
        gradient[0] += np.sum(miss * held.scores)
        gradient[place] += miss.sum(axis=0)
        curvature[0, 0] += np.sum(found * (held.scores - mean) ** 2)
        both = np.sum(found * (held.scores - mean), axis=0)
        curvature[0, place] += both
        curvature[place, 0] += both
        curvature[place, place] += np.diag(found.sum(axis=0)) - found.T @ found
    return gradient, curvature


def uncertain_below(probabilities: FloatArray, labels: IntArray, target: float) -> float:
    """Return the lowest threshold at which what is answered is right as often as ``target``.

    Where none reaches it, the highest threshold there is.
    """
    right = probabilities.argmax(axis=1) == labels
    for threshold in THRESHOLDS:
        answered = probabilities.max(axis=1) >= threshold
        if answered.any() and right[answered].mean() >= target:
            return float(threshold)
    return float(THRESHOLDS[-1])


def calibrated_out_of_fold(
    held: Held, folds: IntArray, on_validation: Sequence[Held]
) -> FloatArray:
    """Return probabilities ``[n, classes]``, each fold's calibrated as the shipped network is.

    ``held`` is what was said of every row by the network that has not seen its fold, and
    ``on_validation`` what the network of each fold said of the validation rows. A fold is
    calibrated by those, and by the other folds: no row has a say in how it is calibrated.
    """
    found = np.zeros_like(held.scores)
    for fold, own in enumerate(on_validation):
        others = [held.only(folds == each) for each in np.unique(folds) if each != fold]
        found[folds == fold] = fit_calibration(own, others).probabilities(
            held.scores[folds == fold]
        )
    return found


def calibrated_by_the_rest(
    own: Held, groups: npt.NDArray[np.str_], others: Sequence[Held], seed: int
) -> FloatArray:
    """Return probabilities ``[n, classes]`` of the rows that calibrate a network.

    They are dealt into parts by patient, and each part is calibrated by the rest. A single patient
    cannot be: then all rows calibrate themselves.
    """
    parts = min(CROSSED, len(np.unique(groups)))
    if parts <= 1:
        return fit_calibration(own, others).probabilities(own.scores)
    dealt = grouped_folds(own.labels, groups, parts, seed)
    found = np.zeros_like(own.scores)
    for part in range(parts):
        calibration = fit_calibration(own.only(dealt != part), others)
        found[dealt == part] = calibration.probabilities(own.scores[dealt == part])
    return found
