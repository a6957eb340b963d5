from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_sender.window import opens_in_s

VIENNA = ZoneInfo("Europe/Vienna")
NIGHT = "20:00-06:00"
times = st.times().map(lambda time: time.strftime("%H:%M"))
windows = st.tuples(times, times).filter(lambda pair: pair[0] != pair[1]).map("-".join)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=UTC)
)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("20:00", 0),
        ("23:59", 0),
        ("00:00", 0),
        ("05:59", 0),
        ("06:00", 14 * 3600),
        ("19:59", 60),
    ],
)
def test_a_window_may_go_over_midnight(time: str, seconds: float) -> None:
    now = datetime.fromisoformat(f"2026-07-14T{time}:00").replace(tzinfo=VIENNA)

    assert opens_in_s(NIGHT, now.astimezone(UTC), VIENNA) == seconds


def test_without_a_window_it_is_always_open() -> None:
    assert opens_in_s(None, datetime(2026, 7, 14, tzinfo=UTC), VIENNA) == 0


def test_an_hour_that_the_clock_skips_is_not_waited_for_twice() -> None:
    # On 2026-03-29 two o'clock is three o'clock at once.
    before = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)

    assert opens_in_s("02:30-05:00", before, VIENNA) <= 3600


@given(windows, moments)
def test_when_it_is_said_to_open_it_is_open(window: str, now: datetime) -> None:
    wait_s = opens_in_s(window, now, UTC)

    assert 0 <= wait_s <= 24 * 3600
    assert opens_in_s(window, now + timedelta(seconds=wait_s), UTC) == 0
