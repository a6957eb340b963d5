import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.classification_metrics import (
    accuracy,
    balanced_accuracy,
    calibrated_ece_limit,
    confusion,
    expected_calibration_error,
    roc_auc,
)

LABELS = np.array([0, 0, 0, 1])
CHOSEN = np.array([0, 0, 1, 1])


def test_accuracy_counts_pictures_and_balanced_accuracy_counts_classes() -> None:
    assert accuracy(LABELS, CHOSEN) == 0.75
    assert balanced_accuracy(LABELS, CHOSEN) == pytest.approx((2 / 3 + 1) / 2)


def test_rows_of_the_confusion_are_true_classes() -> None:
    assert confusion(LABELS, CHOSEN, 3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_the_area_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    positive = np.array([row[0] for row in rows])
    score = np.array([float(row[1]) for row in rows])
    pairs = [
        (ours > theirs) + 0.5 * (ours == theirs)
        for ours in score[positive]
        for theirs in score[~positive]
    ]

    area = roc_auc(positive, score)

    assert area == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_a_classifier_that_is_as_sure_as_it_is_right_is_calibrated() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))

    assert expected_calibration_error(LABELS, probabilities) == pytest.approx(0)
    assert expected_calibration_error(1 - LABELS, probabilities) == pytest.approx(0.5)


def test_honest_confidences_stay_below_the_limit_in_nineteen_of_twenty_samples() -> None:
    random = np.random.default_rng(1)
    confidence = random.uniform(0.5, 1.0, 300)
    probabilities = np.column_stack([confidence, 1 - confidence])

    limit = calibrated_ece_limit(confidence, seed=2)

    samples = [(random.random(300) >= confidence).astype(np.int64) for _ in range(400)]
    below = [expected_calibration_error(labels, probabilities) <= limit for labels in samples]
    assert 0.92 <= np.mean(below) <= 0.98


def test_boastful_confidences_are_above_the_limit() -> None:
    random = np.random.default_rng(4)
    labels = (random.random(300) >= 0.7).astype(np.int64)
    probabilities = np.tile([0.9, 0.1], (300, 1))

    error = expected_calibration_error(labels, probabilities)

    assert error > calibrated_ece_limit(probabilities.max(axis=1), seed=2)
