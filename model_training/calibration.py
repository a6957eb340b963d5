"""Probabilities that mean what they say, and the threshold below which nothing is said."""

import numpy as np
import numpy.typing as npt

from model_training.linear_head import softmax

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TEMPERATURES = np.geomspace(0.25, 4.0, 401)
THRESHOLDS = np.round(np.arange(0.25, 0.96, 0.01), 2)


def best_temperature(scores: FloatArray, labels: IntArray) -> float:
    """Return the temperature whose softmax gives out-of-fold labels the highest likelihood.

    Guo et al., On Calibration of Modern Neural Networks (ICML 2017).
    """
    rows = np.arange(len(labels))
    losses = [
        -np.mean(np.log(softmax(scores / temperature)[rows, labels] + 1e-12))
        for temperature in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


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


def calibrated_out_of_fold(scores: FloatArray, labels: IntArray, folds: IntArray) -> FloatArray:
    """Return probabilities ``[n, classes]``, each fold's at the temperature that the others say.

    So no row has a say in how it is calibrated, and the calibration that is reported is not
    flattered.
    """
    found = np.zeros_like(scores)
    for fold in np.unique(folds):
        held_out = folds == fold
        temperature = best_temperature(scores[~held_out], labels[~held_out])
        found[held_out] = softmax(scores[held_out] / temperature)
    return found
