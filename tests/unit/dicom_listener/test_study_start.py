from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.study_start import study_start

VIENNA = ZoneInfo("Europe/Vienna")


@pytest.mark.parametrize(
    ("day", "time", "offset", "start"),
    [
        ("20260704", "134501.123456", "", "2026-07-04T13:45:01+02:00"),
        ("20260104", "1345", "", "2026-01-04T13:45:00+01:00"),
        ("20260704", "134501", "+0530", "2026-07-04T13:45:01+05:30"),
        ("20260704", "134501", "-0800", "2026-07-04T13:45:01-08:00"),
        ("20260704", "134501", "+0000", "2026-07-04T13:45:01+00:00"),
        ("20260704", "134501", "nonsense", "2026-07-04T13:45:01+02:00"),
        ("20260704", "134501", "+9900", "2026-07-04T13:45:01+02:00"),
        ("1994.07.04", "13:45:01", "", "1994-07-04T13:45:01+02:00"),
        ("20161231", "235960", "", "2016-12-31T23:59:59+01:00"),
        ("20260704", "", "+0530", "2026-07-04"),
        ("20260704", "noon", "", "2026-07-04"),
        ("20260704", "99", "", "2026-07-04"),
        ("", "134501", "", ""),
        ("20261399", "134501", "", ""),
    ],
)
def test_a_start_says_no_more_than_its_source(day: str, time: str, offset: str, start: str) -> None:
    assert study_start(day, time, offset, VIENNA) == start


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=8))
def test_any_text_makes_a_start_or_none(day: str, time: str, offset: str) -> None:
    start = study_start(day, time, offset, VIENNA)

    assert start == "" or datetime.fromisoformat(start)
