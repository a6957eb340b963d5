import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.classification_metrics import accuracy, balanced_accuracy, roc_auc
from inference_worker.grouped_intervals import area, grouped_bootstrap, mean_recall, share_of


def test_an_interval_widens_when_pictures_share_a_patient() -> None:
    right = np.repeat(np.random.default_rng(3).random(40) < 0.7, 5)
    shared = np.array([f"patient {number // 5}" for number in range(200)])
    apart = np.array([f"patient {number}" for number in range(200)])

    grouped = grouped_bootstrap(shared, share_of(right), 1)
    ungrouped = grouped_bootstrap(apart, share_of(right), 1)

    assert grouped is not None
    assert ungrouped is not None
    assert grouped.estimate == ungrouped.estimate
    assert grouped.upper - grouped.lower > 1.5 * (ungrouped.upper - ungrouped.lower)
    assert grouped.lower < grouped.estimate < grouped.upper


def test_the_same_seed_gives_the_same_interval() -> None:
    groups = np.array(["a", "b", "b", "c"])
    right = np.array([True, False, True, True])

    assert grouped_bootstrap(groups, share_of(right), 5) == grouped_bootstrap(
        groups, share_of(right), 5
    )


def test_a_class_that_no_row_has_has_no_interval() -> None:
    groups = np.array(["a", "b"])

    assert grouped_bootstrap(groups, share_of(np.ones(2) > 0, np.zeros(2) > 0), 1) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 4), st.integers(0, 3)),
        min_size=2,
        max_size=25,
    )
)
def test_a_row_drawn_twice_counts_twice(rows: list[tuple[int, int, int, int]]) -> None:
    labels, chosen, score, times = (np.array(column) for column in zip(*rows, strict=True))
    if not times.sum():
        return
    counts = times[np.newaxis].astype(np.float64)
    drawn = np.repeat(np.arange(len(rows)), times)

    positive = labels == 1
    plain_area = roc_auc(positive[drawn], score[drawn].astype(float))
    assert share_of(labels == chosen)(counts)[0] == pytest.approx(
        accuracy(labels[drawn], chosen[drawn])
    )
    assert mean_recall(labels, chosen)(counts)[0] == pytest.approx(
        balanced_accuracy(labels[drawn], chosen[drawn])
    )
    assert area(positive, score.astype(float))(counts)[0] == pytest.approx(
        np.nan if plain_area is None else plain_area, nan_ok=True
    )
