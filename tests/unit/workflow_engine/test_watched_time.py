from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from workflow_engine.watched_time import NoSuchTime, watched_time

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def test_where_nothing_is_said_it_is_the_last_30_days() -> None:
    assert watched_time(None, None, NOW) == (NOW - timedelta(days=30), NOW)


def test_where_the_end_is_said_it_is_the_30_days_before() -> None:
    assert watched_time(None, EARLIEST, NOW) == (EARLIEST - timedelta(days=30), EARLIEST)


@pytest.mark.parametrize(
    ("since", "until"), [(NOW, NOW), (NOW, EARLIEST), (NOW + timedelta(days=1), None)]
)
def test_no_time_between_is_refused(since: datetime, until: datetime | None) -> None:
    with pytest.raises(NoSuchTime, match="since must be before until"):
        watched_time(since, until, NOW)


@pytest.mark.parametrize("hours", [-14, 0, 14])
@pytest.mark.parametrize("day", [(1, 1, 1), (1969, 12, 31), (9999, 1, 2), (9999, 12, 31)])
def test_years_that_need_not_exist_in_utc_are_refused_by_name(
    day: tuple[int, int, int], hours: int
) -> None:
    at = datetime(*day, tzinfo=timezone(timedelta(hours=hours)))

    with pytest.raises(NoSuchTime, match="since must be of"):
        watched_time(at, NOW, NOW)
    with pytest.raises(NoSuchTime, match="until must be of"):
        watched_time(NOW, at, NOW)
