from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imaging_store.model_registry import ModelDecision, ModelState, Standing, version_key

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
ACTIVATE, ROLL_BACK = ModelDecision.ACTIVATE, ModelDecision.ROLL_BACK


def after(*decisions: tuple[str, ModelDecision]) -> Standing:
    standing = Standing(VERSIONS[0])
    for version, decision in decisions:
        standing.decide(version, decision)
    return standing


def test_what_is_added_changes_nothing() -> None:
    assert after(("1.1.0", ModelDecision.ADD)) == after()


def test_activating_takes_the_place_of_the_one_before() -> None:
    standing = after(("1.1.0", ACTIVATE))

    assert standing.state_of("1.1.0") is ModelState.ACTIVE
    assert standing.state_of("1.0.0") is ModelState.INACTIVE


def test_rolling_back_twice_goes_back_two_steps() -> None:
    standing = after(("1.1.0", ACTIVATE), ("1.2.0", ACTIVATE), ("1.1.0", ROLL_BACK))
    assert (standing.active, standing.before) == ("1.1.0", ["1.0.0"])

    standing.decide("1.0.0", ROLL_BACK)

    assert (standing.active, standing.before) == ("1.0.0", [])


def test_a_retired_version_can_be_rolled_back_to() -> None:
    standing = after(("1.0.0", ModelDecision.RETIRE))

    assert standing.active is None
    assert standing.before == ["1.0.0"]


def test_activating_what_is_active_leaves_what_was_before() -> None:
    assert after(("1.1.0", ACTIVATE), ("1.1.0", ACTIVATE)).before == ["1.0.0"]


def test_who_is_promoted_leaves_the_shadow() -> None:
    standing = after(("1.1.0", ModelDecision.SHADOW), ("1.1.0", ACTIVATE))

    assert standing.state_of("1.1.0") is ModelState.ACTIVE
    assert standing.shadows == set()


def test_the_active_version_may_step_back_into_the_shadow() -> None:
    standing = after(("1.0.0", ModelDecision.SHADOW))

    assert standing.active is None
    assert standing.state_of("1.0.0") is ModelState.SHADOW


@given(st.lists(st.tuples(st.sampled_from(VERSIONS), st.sampled_from(ModelDecision))))
def test_no_version_is_active_and_in_shadow(decisions: list[tuple[str, ModelDecision]]) -> None:
    standing = after(*decisions)

    states = [standing.state_of(version) for version in VERSIONS]
    assert states.count(ModelState.ACTIVE) <= 1
    assert standing.active not in standing.shadows


def test_versions_are_compared_by_number() -> None:
    assert max(("1.9.0", "1.10.0", "1.2.0"), key=version_key) == "1.10.0"
