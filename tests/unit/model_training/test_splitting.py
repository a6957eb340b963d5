import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.splitting import Part, grouped_split, groups_on_two_sides, part_of


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), min_size=10, max_size=120),
    st.integers(0, 1000),
)
def test_no_group_is_in_two_parts(rows: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([row[0] for row in rows])
    groups = np.array([f"patient {row[1]}" for row in rows])
    if len(np.unique(groups)) < 3:
        return

    parts = grouped_split(labels, groups, seed)

    assert groups_on_two_sides(parts, groups) == ()


def test_every_class_is_dealt_70_15_15() -> None:
    random = np.random.default_rng(2)
    labels = random.choice(4, size=1000, p=[0.1, 0.2, 0.3, 0.4])
    groups = np.array([f"patient {number // 2}" for number in range(1000)])

    parts = grouped_split(labels, groups, seed=1)

    for label in range(4):
        of_class = parts[labels == label]
        for part, share in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
            assert np.mean(of_class == part) == pytest.approx(share, abs=0.03)


def test_forty_pictures_have_every_class_to_learn_from_and_rows_in_every_part() -> None:
    labels = np.arange(40) % 7
    groups = np.array([str(number) for number in range(40)])

    parts = grouped_split(labels, groups, seed=1)

    assert set(labels[parts == "train"]) == set(range(7))
    assert set(parts) == {"train", "val", "test"}


def test_the_same_seed_splits_alike() -> None:
    labels = np.arange(60) % 3
    groups = np.array([str(number // 3) for number in range(60)])

    assert (grouped_split(labels, groups, 9) == grouped_split(labels, groups, 9)).all()
    assert (grouped_split(labels, groups, 9) != grouped_split(labels, groups, 8)).any()


def test_a_patient_on_two_sides_is_found() -> None:
    parts = np.array(["train", "val", "train", "train"])
    groups = np.array(["a", "a", "b", "b"])

    assert groups_on_two_sides(parts, groups) == ("a",)


@pytest.mark.parametrize(
    ("said", "meant"), [("train", Part.TRAIN), ("", Part.TRAIN), ("Validation", Part.VALIDATION)]
)
def test_a_split_is_known_by_its_usual_names(said: str, meant: Part) -> None:
    assert part_of(said) is meant


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="holdout"):
        part_of("holdout")


def test_two_patients_make_no_three_parts() -> None:
    with pytest.raises(ValueError, match="2 groups cannot make 3 parts"):
        grouped_split(np.array([0, 1]), np.array(["a", "b"]), 1)
