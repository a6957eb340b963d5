"""Fit what a model's domain is compared with, and set its threshold on held-out pictures.

Only pictures that the model may learn from are used, and no picture of another kind: what is
out-of-domain has no end, and a threshold tuned to some of it would say little of the rest. Pictures
of other kinds then tell how well it works, and which method and layer to take.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from inference_worker.classification_metrics import roc_auc
from inference_worker.domain import ClassMeans, Neighbors, Reference, unit_length
from message_contracts.domain_check import DomainMethod, UsualDistances

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

KEPT_SHARE = 0.98
"""The threshold is the distance within which so many of the held-out pictures lie."""

SHRINKAGE = 0.05
"""Of the covariance towards equal variances, which a few hundred pictures leave ill-determined."""

NEIGHBOR = 10
"""Which nearest neighbor is looked at (Sun et al. find anything from 1 to 100 much the same)."""


def fit_class_means(features: FloatArray, labels: IntArray) -> ClassMeans:
    """Fit a mean for each class and a covariance that all classes share."""
    present = np.unique(labels)
    means = np.stack([features[labels == label].mean(axis=0) for label in present])
    gaps = features - means[np.searchsorted(present, labels)]
    covariance = gaps.T @ gaps / len(gaps)
    channels = len(covariance)
    usual = np.trace(covariance) / channels
    covariance = (1 - SHRINKAGE) * covariance + (SHRINKAGE * usual + 1e-12) * np.eye(channels)
    return ClassMeans(means, np.linalg.cholesky(np.linalg.inv(covariance)))


def fit_neighbors(features: FloatArray, labels: IntArray) -> Neighbors:
    """Keep the features of all pictures; their labels do not matter."""
    del labels
    return Neighbors(unit_length(features), min(NEIGHBOR, len(features)))


FITS: dict[DomainMethod, Callable[[FloatArray, IntArray], Reference]] = {
    DomainMethod.MAHALANOBIS: fit_class_means,
    DomainMethod.NEAREST_NEIGHBOR: fit_neighbors,
}


@dataclass(frozen=True)
class Fitted:
    """A reference of all pictures, and the threshold that held-out ones have set."""

    reference: Reference
    threshold: float
    usual: UsualDistances | None = None
    """Of the held-out pictures; ``None`` where they are too few, or much the same."""


def fit_domain(
    method: DomainMethod, features: FloatArray, labels: IntArray, folds: IntArray
) -> Fitted:
    """Fit a reference to ``[n, channels]``; each fold in turn is held out for the threshold."""
    fit = FITS[method]
    distances = np.zeros(len(features))
    for fold in np.unique(folds):
        held_out = folds == fold
        reference = fit(features[~held_out], labels[~held_out])
        distances[held_out] = reference.distances(features[held_out])
    threshold = float(np.quantile(distances, KEPT_SHARE))
    return Fitted(fit(features, labels), threshold, usual_distances(distances))


def usual_distances(distances: FloatArray) -> UsualDistances | None:
    """Return what later distances are held against; ``None`` where these do not tell enough."""
    deciles = [round(float(each), 4) for each in np.quantile(distances, np.arange(1, 10) / 10)]
    try:
        return UsualDistances(picture_count=len(distances), deciles=tuple(deciles))
    except ValidationError:
        return None


def with_kind(reference: ClassMeans, features: FloatArray) -> ClassMeans:
    """Return a reference that takes pictures like these for its own too.

    For phantoms, by which an installation is tried: the model has not learned from them, and what
    it says of them means nothing.
    """
    means = np.vstack([reference.means, features.mean(axis=0)])
    return ClassMeans(means, reference.whitening)


def separation(
    fitted: Fitted, inside: FloatArray, outside: Mapping[str, FloatArray]
) -> dict[str, Any]:
    """Return how well a domain tells pictures of its kind from those of others.

    ``nearest_outside`` is the distance that 99 of 100 pictures of other kinds exceed, as a multiple
    of the threshold: how much room there is between the two.
    """
    within = fitted.reference.distances(inside)
    beyond = {name: fitted.reference.distances(features) for name, features in outside.items()}
    everything = np.concatenate(list(beyond.values()))
    is_outside = np.repeat([False, True], [len(within), len(everything)])
    area = roc_auc(is_outside, np.concatenate([within, everything]))
    return {
        "threshold": round(fitted.threshold, 4),
        "roc_auc": None if area is None else round(area, 4),
        "inside_refused": _share(within > fitted.threshold),
        "outside_refused": _share(everything > fitted.threshold),
        "nearest_outside": round(float(np.quantile(everything, 0.01)) / fitted.threshold, 3),
    }


def _share(values: npt.NDArray[np.bool_]) -> float:
    return round(float(np.mean(values)), 4)
