from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_sender.store_outcome import StoreOutcome, outcome_of


@pytest.mark.parametrize("status", [0x0000, 0x0001, 0xB000, 0xB006, 0xB007, 0x0111])
def test_success_warnings_and_duplicates_are_taken(status: int) -> None:
    assert outcome_of(status) is StoreOutcome.TAKEN


@pytest.mark.parametrize("status", [0xA900, 0xA9FF, 0xC000, 0xCFFF, 0x0122, 0x0124, 0x0117])
def test_what_the_pacs_will_never_take_is_refused(status: int) -> None:
    assert outcome_of(status) is StoreOutcome.REFUSED


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213, 0xFE00, 0x7777])
def test_what_may_pass_is_tried_again(status: int) -> None:
    assert outcome_of(status) is StoreOutcome.TO_BE_TRIED_AGAIN


@given(st.integers(0, 0xFFFF))
def test_every_status_means_something(status: int) -> None:
    assert outcome_of(status) in StoreOutcome
