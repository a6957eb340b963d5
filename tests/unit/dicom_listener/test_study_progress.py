from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.study_progress import (
    NOT_BEGUN,
    Progress,
    after_arrival,
    version_of_arrival,
)

NOON = datetime(2026, 7, 4, 12, tzinfo=UTC)
QUIET = timedelta(seconds=30)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def arrival(progress: Progress, seconds: float, *, makes_version: bool = True) -> Progress:
    return after_arrival(progress, makes_version=makes_version, at=at(seconds), quiet_period=QUIET)


@pytest.mark.parametrize("makes_version", [True, False])
def test_every_instance_of_the_first_version_prolongs_the_wait(makes_version: bool) -> None:
    progress = arrival(arrival(NOT_BEGUN, 0), 20, makes_version=makes_version)

    assert progress == Progress(version=0, pending_since=at(0), quiet_until=at(50))


def test_a_study_without_images_is_waited_for_too() -> None:
    assert arrival(NOT_BEGUN, 0, makes_version=False).quiet_until == at(30)
    assert version_of_arrival(NOT_BEGUN, makes_version=False) == 1


def test_what_makes_no_version_changes_nothing_after_the_announcement() -> None:
    announced = Progress(version=1)

    assert arrival(announced, 0, makes_version=False) == announced
    assert version_of_arrival(announced, makes_version=False) == 1


def test_what_makes_no_version_does_not_prolong_the_wait_for_the_next() -> None:
    waiting = arrival(Progress(version=1), 0)

    assert arrival(waiting, 20, makes_version=False) == waiting
    assert version_of_arrival(waiting, makes_version=False) == 1


def test_a_late_image_makes_the_next_version() -> None:
    announced = Progress(version=1)

    assert arrival(announced, 0) == Progress(1, at(0), at(30))
    assert version_of_arrival(announced, makes_version=True) == 2


def test_a_quick_sender_does_not_shorten_the_pauses_of_a_slow_one() -> None:
    slow = after_arrival(
        NOT_BEGUN, makes_version=True, at=at(0), quiet_period=timedelta(seconds=300)
    )

    both = after_arrival(slow, makes_version=True, at=at(10), quiet_period=timedelta(seconds=5))

    assert both.quiet_until == at(300)


@given(
    st.permutations(
        [(0.0, 30.0), (1.0, 5.0), (7.0, 300.0), (400.0, 5.0)],
    )
)
def test_the_wait_ends_at_the_same_time_in_whichever_order_instances_are_entered(
    arrivals: list[tuple[float, float]],
) -> None:
    progress = NOT_BEGUN

    for seconds, quiet_period_s in arrivals:
        progress = after_arrival(
            progress,
            makes_version=True,
            at=at(seconds),
            quiet_period=timedelta(seconds=quiet_period_s),
        )

    assert progress.quiet_until == at(405)
