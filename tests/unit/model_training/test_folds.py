import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.folds import grouped_folds


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), min_size=10, max_size=200),
    st.integers(0, 1000),
)
def test_no_group_is_in_two_folds(rows: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([row[0] for row in rows])
    groups = np.array([f"patient {row[1]}" for row in rows])
    if len(np.unique(groups)) < 3:
        return

    folds = grouped_folds(labels, groups, 3, seed)

    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1


def test_every_fold_has_its_share_of_every_class() -> None:
    random = np.random.default_rng(2)
    labels = random.choice(4, size=1000, p=[0.1, 0.2, 0.3, 0.4])
    groups = np.array([f"patient {number // 2}" for number in range(1000)])

    folds = grouped_folds(labels, groups, 5, seed=1)

    table = np.array([np.bincount(labels[folds == fold], minlength=4) for fold in range(5)])
    assert (table.max(axis=0) - table.min(axis=0)).max() <= 4


def test_the_same_seed_deals_alike() -> None:
    labels = np.arange(60) % 3
    groups = np.array([str(number // 3) for number in range(60)])

    assert (grouped_folds(labels, groups, 4, 9) == grouped_folds(labels, groups, 4, 9)).all()
    assert (grouped_folds(labels, groups, 4, 9) != grouped_folds(labels, groups, 4, 8)).any()


def test_fewer_groups_than_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="2 groups cannot make 5 folds"):
        grouped_folds(np.array([0, 1]), np.array(["a", "b"]), 5, 1)
