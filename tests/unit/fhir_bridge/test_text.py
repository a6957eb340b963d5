from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_bridge.person_name import person_names
from fhir_bridge.text import calendar_date, printable, study_time


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("Mustermann^Erika^Maria^Dr.^MBA", ["Mustermann, Dr. Erika Maria MBA"]),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["Yamada, Tarou", "山田, 太郎", "やまだ, たろう"]),
        ("=山田^太郎", ["山田, 太郎"]),
        ("^Erika", ["Erika"]),
        ("", []),
        ("^^^^==", []),
    ],
)
def test_a_name_is_taken_apart_with_all_its_groups(value: str, texts: list[str]) -> None:
    assert [name.text for name in person_names(value)] == texts


def test_each_group_says_what_it_represents() -> None:
    names = person_names("A^B=C^D=E^F")

    assert [name.representation for name in names] == ["ABC", "IDE", "SYL"]


@given(st.text())
def test_no_name_fails(value: str) -> None:
    assert all(name.text for name in person_names(value))


@pytest.mark.parametrize(
    ("started", "told"),
    [
        ("2026-03-04T09:30:00+01:00", "2026-03-04T09:30:00+01:00"),
        ("2026-03-04T09:30:00.250Z", "2026-03-04T09:30:00.250Z"),
        ("2026-03-04", "2026-03-04"),
        pytest.param("2026-03-04T09:30:00", "", id="a time without zone is not understood"),
        pytest.param("2026-03-04T25:30:00Z", "2026-03-04", id="no such hour"),
        pytest.param("2026-02-30", "", id="no such day"),
        ("", ""),
        ("yesterday", ""),
    ],
)
def test_a_time_is_told_as_known_and_never_invented(started: str, told: str) -> None:
    assert study_time(started) == told


@pytest.mark.parametrize(
    ("da", "told"),
    [
        ("19640812", "1964-08-12"),
        ("19640231", ""),
        ("1964", ""),
        ("", ""),
        pytest.param("1964812", "", id="a digit is missing, and which is not known"),
        pytest.param("196481", "", id="two are missing"),
    ],
)
def test_a_birth_date_is_a_day_of_the_calendar_or_nothing(da: str, told: str) -> None:
    assert calendar_date(da) == told


@given(st.text(alphabet=st.characters()))
def test_printable_text_has_no_control_characters(text: str) -> None:
    told = printable(text)

    assert not any(ord(it) < 0x20 and it not in "\t\n\r" for it in told)
    told.encode()
