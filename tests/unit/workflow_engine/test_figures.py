from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.figures import PARTS, Shift, drift, share, spread


def test_the_interval_is_wilsons() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263.
    found = share(81, 263)

    assert found is not None
    assert (found.share, found.low, found.high) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)


def test_of_nothing_there_is_no_share() -> None:
    assert share(0, 0) is None
    assert drift([0] * PARTS, 100) is None
    assert spread(0, 0, 0) is None


def test_equal_parts_are_no_drift() -> None:
    found = drift([50] * PARTS, 1000)

    assert found is not None
    assert found.psi == 0
    assert found.shift is Shift.NONE


def test_inputs_that_all_lie_farthest_away_have_drifted() -> None:
    found = drift([0] * (PARTS - 1) + [200], 1000)

    assert found is not None
    assert found.shift is Shift.LARGE


def test_a_few_studies_do_not_tell_of_drift() -> None:
    found = drift([3, 0, 1, 0, 2, 0, 0, 1, 0, 1], 1000)

    assert found is not None
    assert found.psi > 0.1
    assert found.shift is Shift.NONE


def test_without_drift_the_index_exceeds_its_bound_in_one_of_twenty() -> None:
    lots = random.Random(7)
    exceeded = 0
    for _ in range(400):
        parts = [0] * PARTS
        for _ in range(300):
            parts[lots.randrange(PARTS)] += 1
        found = drift(parts, 10**9)
        assert found is not None
        exceeded += found.psi > found.psi_by_chance

    assert 0.02 <= exceeded / 400 <= 0.09


@given(st.lists(st.integers(0, 10**6), min_size=PARTS, max_size=PARTS), st.integers(10, 10**6))
def test_an_index_is_never_negative_nor_infinite(parts: list[int], usual: int) -> None:
    found = drift(parts, usual)

    assert found is None or 0 <= found.psi < 100


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_share_lies_in_its_interval(count: int, more: int) -> None:
    found = share(count, count + more)

    assert found is not None
    assert 0 <= found.low <= found.share <= found.high <= 1


def test_the_spread_is_that_of_the_values() -> None:
    found = spread(4, 10, 30)

    assert found == pytest.approx((2.5, 1.118034))
