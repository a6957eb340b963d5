from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_listener.dicomweb.search_parameters import (
    LARGEST_PAGE,
    InvalidSearch,
    Level,
    Match,
    OneOf,
    Range,
    Search,
    Text,
    parse_search,
)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("PatientName", "qu?ll*", Text("qu?ll*")),
        ("00100010", "Quill^Ada", Text("Quill^Ada")),
        ("0020000D", "1.2, 1.3", OneOf(("1.2", "1.3"))),
        ("ModalitiesInStudy", "CT\\MR", OneOf(("CT", "MR"))),
        ("StudyDate", "20260704", Range("2026-07-04", "2026-07-05")),
        ("StudyDate", "20260704-", Range("2026-07-04", "")),
        ("StudyDate", "-20261231", Range("", "2027-01-01")),
        ("StudyDate", "20260101-20260228", Range("2026-01-01", "2026-03-01")),
        ("StudyTime", "1030", Range("10:30:00", "10:30:59~")),
        ("StudyTime", "103000.5-11", Range("10:30:00", "11:59:59~")),
    ],
)
def test_a_key_is_matched_by_its_kind(key: str, value: str, match: Match) -> None:
    [found] = parse_search(Level.STUDY, [(key, value)]).matches.values()

    assert found == match


@pytest.mark.parametrize("value", ["", "*", "**"])
def test_universal_matching_asks_for_nothing(value: str) -> None:
    assert parse_search(Level.STUDY, [("PatientID", value)]).matches == {}


def test_what_a_viewer_asks_is_understood() -> None:
    asked = "limit=101&offset=202&fuzzymatching=true&includefield=00081030&includefield=all"
    parameters = [tuple(pair.split("=")) for pair in asked.split("&")]

    assert parse_search(Level.STUDY, parameters) == Search(  # type: ignore[arg-type]
        Level.STUDY, {}, limit=101, offset=202, is_fuzzy=True
    )


def test_a_page_has_an_end() -> None:
    for level in Level:
        assert parse_search(level, [("limit", "999999")]).limit == LARGEST_PAGE[level]
        assert parse_search(level, []).limit == LARGEST_PAGE[level]


def test_the_path_and_the_query_hold_together() -> None:
    fixed = {"StudyInstanceUID": "1.2"}

    both = parse_search(Level.SERIES, [("StudyInstanceUID", "1.2,1.3")], fixed)
    neither = parse_search(Level.SERIES, [("StudyInstanceUID", "1.3")], fixed)

    assert both.matches == {"StudyInstanceUID": OneOf(("1.2",))}
    assert neither.matches == {"StudyInstanceUID": OneOf(())}


@pytest.mark.parametrize(
    ("level", "key", "value", "named"),
    [
        (Level.STUDY, "Modality", "CT", "Modality"),
        (Level.STUDY, "00100032", "1", "00100032|PatientBirthTime"),
        (Level.STUDY, "StudyDate", "20260231", "StudyDate"),
        (Level.STUDY, "StudyDate", "Quill", "StudyDate"),
        (Level.STUDY, "StudyTime", "Quill", "StudyTime"),
        (Level.INSTANCE, "InstanceNumber", "Quill", "InstanceNumber"),
        (Level.STUDY, "limit", "-1", "limit"),
        (Level.STUDY, "Quill Ada", "1", "a parameter"),
        (Level.STUDY, "PatientID", "1" * 20_000, "PatientID"),
        (Level.STUDY, "PatientID", "Quill\0", "PatientID"),
    ],
)
def test_what_cannot_be_understood_is_named_without_its_value(
    level: Level, key: str, value: str, named: str
) -> None:
    with pytest.raises(InvalidSearch, match=named) as refused:
        parse_search(level, [(key, value)])

    assert "Quill" not in str(refused.value)


def test_a_key_is_given_once() -> None:
    with pytest.raises(InvalidSearch, match="PatientID: given twice"):
        parse_search(Level.STUDY, [("PatientID", "1"), ("00100020", "2")])


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=5))
def test_any_query_is_understood_or_not(parameters: list[tuple[str, str]]) -> None:
    with suppress(InvalidSearch):
        parse_search(Level.INSTANCE, parameters)
