"""Multinomial logistic regression: the linear probe, the thumbnail baseline, the first head."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ITERATIONS = 600
FLAT = 1e-6
"""A slope of the loss at which nothing is left to gain."""


@dataclass(frozen=True)
class LinearHead:
    """``features @ kernel + bias`` are the scores, ``[n, classes]``."""

    kernel: FloatArray
    bias: FloatArray

    def scores(self, features: FloatArray) -> FloatArray:
        """Return the scores of ``[n, channels]`` features."""
        return np.asarray(features @ self.kernel + self.bias)


def fit_linear_head(
    features: FloatArray, labels: IntArray, weights: FloatArray, l2: float
) -> LinearHead:
    """Fit a linear head by accelerated gradient descent; ``weights`` is one per class.

    ``l2`` is the penalty on the kernel over standardized features, per picture. Nesterov's method
    with the step that the loss's curvature allows: no randomness and nothing to tune.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    inputs = np.column_stack([(features - mean) / deviation, np.ones(len(features))])
    each = weights[labels] / len(labels)
    target = np.eye(len(weights))[labels]
    penalty = np.full((inputs.shape[1], 1), l2)
    penalty[-1] = 1e-6
    curvature = 0.5 * np.linalg.norm(inputs * np.sqrt(each)[:, np.newaxis], 2) ** 2 + l2
    kernel = np.zeros((inputs.shape[1], len(weights)))
    ahead = kernel
    for iteration in range(ITERATIONS):
        miss = (softmax(inputs @ ahead) - target) * each[:, np.newaxis]
        slope = inputs.T @ miss + penalty * ahead
        after = ahead - slope / curvature
        ahead = after + iteration / (iteration + 3) * (after - kernel)
        kernel = after
        if np.abs(slope).max() < FLAT:
            break
    scaled = kernel[:-1] / deviation[:, np.newaxis]
    return LinearHead(kernel=scaled, bias=kernel[-1] - mean @ scaled)


def softmax(scores: FloatArray) -> FloatArray:
    """Return probabilities ``[n, classes]``."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
