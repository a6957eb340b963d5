from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_runtime.telemetry import trace

WELL_FORMED = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def test_a_step_keeps_the_journey_and_is_a_step_of_its_own() -> None:
    first = trace.begin()

    second = trace.continued(first)

    ids, next_ids = trace.ids_of(first), trace.ids_of(second)
    assert next_ids["trace_id"] == ids["trace_id"]
    assert next_ids["span_id"] != ids["span_id"]


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        "",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "01-" + "1" * 32 + "-" + "1" * 16 + "-01",
    ],
)
def test_a_malformed_traceparent_begins_a_new_journey(malformed: str | None) -> None:
    begun = trace.continued(malformed)

    assert WELL_FORMED.fullmatch(begun)
    assert begun[3:35] not in (malformed or "")


@given(st.text())
def test_whatever_comes_in_what_goes_out_is_well_formed(text: str) -> None:
    assert WELL_FORMED.fullmatch(trace.continued(text))
