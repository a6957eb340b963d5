from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from message_contracts.patient_age import age_in_years

DAYS = st.dates(min_value=date(1900, 1, 1), max_value=date(2030, 12, 31))


@pytest.mark.parametrize(
    ("age_string", "years"),
    [("018Y", 18), ("006M", 0.5), ("052W", 52 * 7 / 365.25), ("010D", 10 / 365.25), ("7y ", 7)],
)
def test_what_the_age_string_says_is_believed(age_string: str, years: float) -> None:
    assert age_in_years(age_string, "19000101", "20260301") == pytest.approx(years)


def test_without_an_age_string_birth_and_study_date_tell() -> None:
    assert age_in_years("", "20080302", "20260301") == pytest.approx(17.997, abs=0.001)
    assert age_in_years("", "20080301", "2026-03-01T11:00:00+00:00") == 18
    assert age_in_years("", "2008.03.01", "2026-03-01") == 18


def test_who_was_born_on_a_leap_day_has_a_birthday_in_every_year() -> None:
    assert (age_in_years("", "20080229", "20260228") or 0) < 18
    assert age_in_years("", "20080229", "20260301") == 18


@pytest.mark.parametrize(
    ("age_string", "birth_date", "study_date"),
    [
        ("", "", "20260301"),
        ("", "20080301", ""),
        ("018", "unknown", "20260301"),
        ("", "20270101", "20260301"),
        ("", "17000101", "20260301"),
        ("", "20261332", "20260301"),
    ],
)
def test_where_nothing_tells_there_is_no_age(
    age_string: str, birth_date: str, study_date: str
) -> None:
    assert age_in_years(age_string, birth_date, study_date) is None


@given(DAYS, DAYS)
def test_nobody_gets_younger(born: date, examined: date) -> None:
    birth, study = f"{born:%Y%m%d}", f"{examined:%Y%m%d}"
    today = age_in_years("", birth, study)
    tomorrow = age_in_years("", birth, f"{examined + timedelta(days=1):%Y%m%d}")

    if today is None:
        assert examined < born
    else:
        assert tomorrow is not None
        assert today < tomorrow


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=30))
def test_whatever_is_written_there_raises_nothing(one: str, two: str, three: str) -> None:
    age = age_in_years(one, two, three)

    assert age is None or age >= 0
