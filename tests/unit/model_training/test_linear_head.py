import numpy as np
import pytest

from model_training.linear_head import fit_linear_head, softmax


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centers = np.array([[0, 0, 0], [3, 0, 100], [0, 3, -100]])
    return centers[labels] + random.normal(0, 1, (count, 3)) * (1, 1, 50), labels


def test_it_tells_blobs_apart_whatever_their_scale() -> None:
    features, labels = blobs(300, 1)
    unseen, truth = blobs(300, 2)

    head = fit_linear_head(features, labels, np.ones(3), 0.001)

    assert np.mean(head.scores(unseen).argmax(axis=1) == truth) > 0.9


def test_the_fit_is_where_the_gradient_vanishes() -> None:
    features, labels = blobs(200, 3)
    l2 = 0.05

    head = fit_linear_head(features, labels, np.ones(3), l2)

    deviation = features.std(axis=0) + 1e-6
    standardized = (features - features.mean(axis=0)) / deviation
    miss = (softmax(head.scores(features)) - np.eye(3)[labels]) / len(labels)
    gradient = standardized.T @ miss + l2 * head.kernel * deviation[:, np.newaxis]
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_a_weighted_class_is_missed_less() -> None:
    random = np.random.default_rng(4)
    labels = (np.arange(400) % 10 == 0).astype(int)
    features = random.normal(labels[:, np.newaxis], 1.0, (400, 1))

    plain = fit_linear_head(features, labels, np.ones(2), 0.001).scores(features).argmax(axis=1)
    weighted = fit_linear_head(features, labels, np.array([1.0, 9.0]), 0.001)

    found = weighted.scores(features).argmax(axis=1)
    assert np.mean(found[labels == 1]) > np.mean(plain[labels == 1]) + 0.2


def test_probabilities_stay_finite_for_large_scores() -> None:
    probabilities = softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]]))

    assert probabilities.tolist() == [[1.0, 0.0], [pytest.approx(0.5), pytest.approx(0.5)]]
