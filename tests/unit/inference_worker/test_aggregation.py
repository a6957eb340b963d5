from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.aggregation import aggregate
from message_contracts.model_description import ModelDescription
from message_contracts.study_selection import StudySelection
from tests.readings import a_model

SLICES = [(0.9, 0.1, 0.0), (0.2, 0.3, 0.5), (0.1, 0.8, 0.1), (0.6, 0.1, 0.3)]


def declared(aggregate: str, top_k: int | None = None, normal: str = "Round") -> ModelDescription:
    """Describe a model whose first class says that nothing was found."""
    model = a_model(reads=StudySelection(aggregate=aggregate, top_k=top_k))
    classes = [
        each.model_copy(update={"no_abnormality": each.label == normal}) for each in model.classes
    ]
    return model.model_copy(update={"classes": tuple(classes)})


def test_the_mean_rests_on_all() -> None:
    together = aggregate(SLICES, declared("mean"))

    assert together.probabilities == pytest.approx((0.45, 0.325, 0.225))
    assert together.rests_on == (0, 1, 2, 3)


def test_the_greatest_is_that_of_the_slice_farthest_from_normal() -> None:
    together = aggregate(SLICES, declared("max"))

    assert together.probabilities == SLICES[2]
    assert together.rests_on == (2,)


def test_the_mean_of_the_top_two_leaves_the_normal_ones_out() -> None:
    together = aggregate(SLICES, declared("top_k_mean", 2))

    assert together.rests_on == (2, 1)
    assert together.probabilities == pytest.approx((0.15, 0.55, 0.3))


def test_fewer_pictures_than_asked_for_are_all() -> None:
    assert aggregate(SLICES[:2], declared("top_k_mean", 5)).rests_on == (1, 0)


def test_without_a_class_for_nothing_found_the_surest_slice_speaks() -> None:
    assert aggregate(SLICES, declared("max", normal="")).rests_on == (0,)


@given(
    pictures=st.lists(
        st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=30
    ),
    how=st.sampled_from([("mean", None), ("max", None), ("top_k_mean", 4)]),
)
def test_whatever_is_aggregated_is_a_distribution_again(
    pictures: list[list[float]], how: tuple[str, int | None]
) -> None:
    shares = [tuple(np.array(each) / sum(each)) for each in pictures]

    together = aggregate(shares, declared(*how))

    assert sum(together.probabilities) == pytest.approx(1)
    assert len(set(together.rests_on)) == len(together.rests_on) <= len(shares)
