import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.calibration import (
    LEAST_SLOPE,
    Calibration,
    Held,
    calibrated_by_the_rest,
    calibrated_out_of_fold,
    fit_calibration,
    uncertain_below,
)
from model_training.linear_head import softmax

NOBODY = Held(np.zeros((0, 3)), np.zeros(0, np.int64))


def said(count: int, calibration: Calibration, seed: int) -> Held:
    """Scores that mean what they say once they are calibrated so."""
    random = np.random.default_rng(seed)
    honest = random.normal(0, 2, (count, 3))
    labels = np.array([random.choice(3, p=row) for row in softmax(honest)])
    return Held((honest - calibration.offsets) / calibration.slope, labels)


def calibration(slope: float, *offsets: float) -> Calibration:
    return Calibration(slope, np.array(offsets))


def loss(held: Held, probabilities: npt.NDArray[np.float64]) -> float:
    return float(-np.mean(np.log(probabilities[np.arange(len(held.labels)), held.labels])))


@pytest.mark.parametrize(
    "true",
    [calibration(1, 0, 0, 0), calibration(0.4, 0, 0, 0), calibration(1.6, 1.2, -0.2, -1)],
)
def test_the_calibration_of_scores_is_found(true: Calibration) -> None:
    found = fit_calibration(said(6000, true, seed=1))

    assert found.slope == pytest.approx(true.slope, rel=0.08)
    assert found.temperature == pytest.approx(1 / true.slope, rel=0.08)
    assert found.offsets == pytest.approx(true.offsets, abs=0.12)
    assert found.offsets.sum() == pytest.approx(0, abs=1e-9)


def test_networks_share_how_sure_they_are_and_not_to_which_class_they_lean() -> None:
    few = said(40, calibration(0.5, 1, 0, -1), seed=2)
    many = said(6000, calibration(0.5, -2, 1, 1), seed=3)

    found = fit_calibration(few, [many])

    assert found.slope == pytest.approx(0.5, rel=0.08)
    assert found.offsets == pytest.approx((1, 0, -1), abs=0.6)


def test_a_network_without_rows_of_its_own_leans_to_no_class() -> None:
    found = fit_calibration(NOBODY, [said(6000, calibration(0.5, -2, 1, 1), seed=3)])

    assert found.slope == pytest.approx(0.5, rel=0.08)
    assert found.offsets.tolist() == [0, 0, 0]


def test_without_any_row_scores_are_taken_at_their_word() -> None:
    found = fit_calibration(NOBODY)

    assert (found.slope, found.offsets.tolist()) == (1, [0, 0, 0])


def test_few_rows_that_are_all_right_make_no_certainty() -> None:
    found = fit_calibration(Held(np.eye(3) * 2, np.arange(3)))

    assert 1 < found.slope < 2
    assert found.probabilities(np.eye(3) * 2).max() < 0.98


def test_the_ranking_of_classes_is_never_turned_over() -> None:
    wrong = said(400, calibration(1, 0, 0, 0), seed=4)

    assert fit_calibration(Held(-wrong.scores, wrong.labels)).slope == LEAST_SLOPE


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.1, 30))
def test_no_other_calibration_fits_better(seed: int, count: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    held = Held(random.normal(0, scale, (count, 3)), random.integers(0, 3, count))

    def penalized(each: Calibration) -> float:
        beforehand = ((each.slope - 1) ** 2 + np.sum(each.offsets**2)) / 2
        return count * loss(held, each.probabilities(held.scores) + 1e-300) + float(beforehand)

    found = fit_calibration(held)

    for _ in range(10):
        slope = max(found.slope + random.normal(0, 0.1), LEAST_SLOPE)
        other = Calibration(slope, found.offsets + random.normal(0, 0.1, 3))
        assert penalized(found) <= penalized(other) + 1e-6


def test_the_threshold_is_the_lowest_at_which_the_rest_is_right_often_enough() -> None:
    sure = np.array([0.95, 0.9, 0.6, 0.55, 0.5])
    probabilities = np.column_stack([sure, 1 - sure])
    labels = np.array([0, 0, 0, 1, 1])

    assert uncertain_below(probabilities, labels, 0.9) == 0.56
    assert uncertain_below(probabilities, labels, 0.5) == 0.25


def test_where_no_threshold_reaches_the_target_the_highest_is_taken() -> None:
    probabilities = np.array([[0.99, 0.01]])

    assert uncertain_below(probabilities, np.array([1]), 0.9) == 0.95


def test_out_of_fold_no_row_has_a_say_in_its_own_calibration() -> None:
    held = said(400, calibration(0.7, 0.5, 0, -0.5), seed=5)
    own = [said(50, calibration(0.7, 0, 0, 0), seed=each) for each in (6, 7)]
    folds = np.arange(400) % 2

    before = calibrated_out_of_fold(held, folds, own)
    other = Held(held.scores, np.where(folds == 0, (held.labels + 1) % 3, held.labels))
    after = calibrated_out_of_fold(other, folds, own)

    assert (before[folds == 0] == after[folds == 0]).all()
    assert (before[folds == 1] != after[folds == 1]).any()


def test_the_rows_that_calibrate_are_judged_by_other_patients() -> None:
    held = said(120, calibration(0.7, 0.5, 0, -0.5), seed=8)
    groups = np.array([f"p{each // 3}" for each in range(120)])
    changed = groups == "p7"

    before = calibrated_by_the_rest(held, groups, (), seed=1)
    scores = np.where(changed[:, np.newaxis], -held.scores, held.scores)
    after = calibrated_by_the_rest(Held(scores, held.labels), groups, (), seed=1)

    same = (before == after).all(axis=1)
    assert not same[changed].any()
    # Those dealt into one part with the patient, and nobody else, are calibrated as before.
    assert 0 < same.sum() < 120 / 3


def test_a_single_patient_calibrates_himself() -> None:
    held = said(9, calibration(1, 0, 0, 0), seed=9)

    found = calibrated_by_the_rest(held, np.repeat("p", 9), (), seed=1)

    assert found == pytest.approx(fit_calibration(held).probabilities(held.scores))
