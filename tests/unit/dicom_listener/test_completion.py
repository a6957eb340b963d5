from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.completion import (
    NOT_BEGUN,
    Progress,
    after_arrival,
    is_quiet,
    version_of_arrival,
    wait_s,
)

NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)
QUIET = timedelta(seconds=30)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize("makes_version", [True, False])
def test_every_instance_of_the_first_version_prolongs_the_wait(makes_version: bool) -> None:
    progress = after_arrival(NOT_BEGUN, makes_version=True, at=at(0))

    progress = after_arrival(progress, makes_version=makes_version, at=at(20))

    assert not is_quiet(progress, at(49), QUIET)
    assert is_quiet(progress, at(50), QUIET)


def test_a_study_without_images_is_complete_too() -> None:
    progress = after_arrival(NOT_BEGUN, makes_version=False, at=at(0))

    assert is_quiet(progress, at(30), QUIET)
    assert version_of_arrival(NOT_BEGUN, makes_version=False) == 1


def test_what_makes_no_version_changes_nothing_after_the_announcement() -> None:
    announced = Progress(version=1, pending_since=None)

    assert after_arrival(announced, makes_version=False, at=at(0)) == announced
    assert version_of_arrival(announced, makes_version=False) == 1


def test_what_makes_no_version_does_not_prolong_the_wait_for_the_next() -> None:
    waiting = Progress(version=1, pending_since=at(0))

    assert after_arrival(waiting, makes_version=False, at=at(20)) == waiting
    assert version_of_arrival(waiting, makes_version=False) == 1


def test_a_late_image_makes_the_next_version() -> None:
    announced = Progress(version=1, pending_since=None)

    late = after_arrival(announced, makes_version=True, at=at(0))

    assert late == Progress(version=1, pending_since=at(0))
    assert version_of_arrival(announced, makes_version=True) == 2


def test_a_study_that_waits_for_nothing_is_not_announced_again() -> None:
    assert not is_quiet(Progress(version=1, pending_since=None), at(10**6), QUIET)


@given(
    pending=st.lists(st.floats(-100, 0)),
    later=st.floats(0, 30, exclude_max=True),
)
def test_nothing_becomes_complete_while_waiting(pending: list[float], later: float) -> None:
    waiting = [at(seconds) for seconds in pending if at(seconds) + QUIET > NOON]

    wait = wait_s(waiting, NOON, QUIET)

    moment = NOON + timedelta(seconds=wait * later / 30.001)
    arrivals = [*waiting, NOON]
    assert not any(
        is_quiet(Progress(0, since), moment - timedelta(microseconds=2), QUIET)
        for since in arrivals
    )
    assert wait <= 30
