from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference_worker.partial_reading import MOST_REASONS, not_read, statement

uids = st.integers(1, 10**6).map(lambda number: f"2.25.{number}")
reasons = st.text(min_size=1, max_size=600)


def test_what_was_read_whole_needs_no_statement() -> None:
    assert not_read({}, {}) == ()
    assert statement(()) is None


def test_reasons_that_differ_in_their_numbers_are_one_reason() -> None:
    refused = {
        "2.25.1": "Not of the kind (distance 3.21, at most 1.50).",
        "2.25.2": "Not of the kind (distance 4.07, at most 1.50).",
    }

    [told] = not_read({}, refused)

    assert told.instance_count == 2
    assert told.is_refusal
    assert told.reason == "Not of the kind (distance 3.21, at most 1.50)."
    assert told.sop_instance_uids == ("2.25.1", "2.25.2")


def test_the_statement_tells_the_unreadable_from_the_refused() -> None:
    missing = not_read({"2.25.1": "the pixel data is truncated"}, {"2.25.2": "It is blank."})

    assert statement(missing) == (
        "The finding does not rest on all instances. Not read, or not whole: 2 "
        "(1 unreadable: the pixel data is truncated; 1 refused: It is blank)."
    )


def test_an_instance_that_is_refused_in_part_and_then_unreadable_is_counted_once() -> None:
    [told] = not_read({"2.25.1": "the pixel data is truncated"}, {"2.25.1": "It is blank."})

    assert (told.instance_count, told.is_refusal) == (1, False)


@given(st.dictionaries(uids, reasons, max_size=40), st.dictionaries(uids, reasons, max_size=40))
def test_whatever_is_missing_each_instance_is_counted_and_the_list_is_short(
    unreadable: dict[str, str], refused: dict[str, str]
) -> None:
    told = not_read(unreadable, refused)

    assert sum(each.instance_count for each in told) == len(unreadable | refused)
    assert len(told) <= MOST_REASONS
