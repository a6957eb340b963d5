"""Figures of a classifier. Numpy only."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CALIBRATION_BINS = 10
SAMPLES = 2000
CALIBRATED_PERCENTILE = 95


def accuracy(labels: IntArray, chosen: IntArray) -> float:
    """Return the share of pictures whose class was chosen."""
    return float(np.mean(labels == chosen))


def recalls(labels: IntArray, chosen: IntArray) -> FloatArray:
    """Return for each class that occurs the share of its pictures that was found."""
    counts = np.bincount(labels)
    right = np.bincount(labels[labels == chosen], minlength=len(counts))
    return np.asarray(right[counts > 0] / counts[counts > 0])


def balanced_accuracy(labels: IntArray, chosen: IntArray) -> float:
    """Return the mean of the recalls of the classes that occur."""
    return float(recalls(labels, chosen).mean())


def confusion(labels: IntArray, chosen: IntArray, class_count: int) -> IntArray:
    """Return ``[class_count, class_count]``: rows are true classes, columns chosen ones."""
    table = np.zeros((class_count, class_count), dtype=np.int64)
    np.add.at(table, (labels, chosen), 1)
    return table


def roc_auc(positive: npt.NDArray[np.bool_], score: FloatArray) -> float | None:
    """Return the area under the ROC curve (Mann-Whitney; ties count half).

    ``None`` where one of the two sides does not occur.
    """
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return None
    _, place, sizes = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(sizes) - (sizes - 1) / 2
    above = rank[place][positive].sum() - count * (count + 1) / 2
    return float(above / (count * others))


def expected_calibration_error(labels: IntArray, probabilities: FloatArray) -> float:
    """Return the mean gap between confidence and accuracy over 10 equal bins of confidence.

    Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning (AAAI 2015), of
    the class that was chosen.
    """
    confidence, chosen = probabilities.max(axis=1), probabilities.argmax(axis=1)
    bins = confidence_bins(confidence)
    gap = np.bincount(bins, (chosen == labels) - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(labels))


def confidence_bins(confidence: FloatArray) -> IntArray:
    """Return the bin of every confidence, 0 to 9; a confidence of 1 is in the last one."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibrated_ece_limit(confidence: FloatArray, seed: int) -> float:
    """Return what chance alone lets the calibration error of honest confidences be, at most.

    Were every confidence exactly the chance of being right, the error over ``n`` pictures would
    still not be zero. Right and wrong are drawn from the confidences 2000 times; the answer is the
    95th percentile of the errors. An error above it is more than chance (consistency sampling,
    Bröcker and Smith, Weather and Forecasting 2007).
    """
    random, bins = np.random.default_rng(seed), confidence_bins(confidence)
    errors = [
        np.abs(np.bincount(bins, (random.random(len(bins)) < confidence) - confidence)).sum()
        for _ in range(SAMPLES)
    ]
    return float(np.percentile(errors, CALIBRATED_PERCENTILE) / len(bins))
