import numpy as np
import pytest

from model_training.calibration import best_temperature, calibrated_out_of_fold, uncertain_below
from model_training.linear_head import softmax


def test_the_temperature_of_overconfident_scores_is_found() -> None:
    random = np.random.default_rng(1)
    honest = random.normal(0, 2, (4000, 3))
    labels = np.array([random.choice(3, p=row) for row in softmax(honest)])

    assert best_temperature(honest * 2.5, labels) == pytest.approx(2.5, rel=0.1)
    assert best_temperature(honest, labels) == pytest.approx(1.0, rel=0.1)


def test_the_threshold_is_the_lowest_at_which_the_rest_is_right_often_enough() -> None:
    sure = np.array([0.95, 0.9, 0.6, 0.55, 0.5])
    probabilities = np.column_stack([sure, 1 - sure])
    labels = np.array([0, 0, 0, 1, 1])

    assert uncertain_below(probabilities, labels, 0.9) == 0.56
    assert uncertain_below(probabilities, labels, 0.5) == 0.25


def test_where_no_threshold_reaches_the_target_the_highest_is_taken() -> None:
    probabilities = np.array([[0.99, 0.01]])

    assert uncertain_below(probabilities, np.array([1]), 0.9) == 0.95


def test_out_of_fold_no_row_has_a_say_in_its_own_temperature() -> None:
    random = np.random.default_rng(3)
    scores = random.normal(0, 2, (400, 3))
    labels = np.array([random.choice(3, p=row) for row in softmax(scores)])
    folds = np.arange(400) % 2

    before = calibrated_out_of_fold(scores, labels, folds)
    other_labels = np.where(folds == 0, (labels + 1) % 3, labels)
    after = calibrated_out_of_fold(scores, other_labels, folds)

    assert (before[folds == 0] == after[folds == 0]).all()
    assert (before[folds == 1] != after[folds == 1]).any()
