from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from message_contracts.study_selection import StudySelection


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"every": 2}, "for what: slices"),
        ({"series_description": ["*T2*"]}, "for what: slices"),
        ({"aggregate": "top_k_mean"}, "top_k is needed"),
        ({"aggregate": "max", "top_k": 3}, "top_k is needed"),
        ({"what": "slices", "every": 0}, "every"),
        ({"favorite": "blue"}, "favorite"),
    ],
)
def test_fields_that_do_not_belong_together_are_refused(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        StudySelection.model_validate(fields)


def test_the_earliest_pattern_that_the_whole_description_matches_counts() -> None:
    reads = StudySelection(what="slices", series_description=("*FLAIR*", "t2 ?se", "[x]*"))

    assert reads.preference("ax t2 flair") == 0
    assert reads.preference(" T2 TSE ") == 1
    assert reads.preference("[X] old") == 2
    assert reads.preference("AX T2 TSE") == 3
    assert reads.preference("") == 3
