from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from message_contracts.applicability import ApplicabilityRule, InstanceAttributes, WhenAbsent
from tests.conftest import CHECKOUT

MR = "1.2.840.10008.5.1.4.1.1.4"
T1_OF_A_CHILD = InstanceAttributes(
    modality="MR",
    body_part_examined="BRAIN",
    sop_class_uid=MR,
    view_position=None,
    laterality="L",
    series_description="AX T1  [post]",
    calling_ae_title="MR1",
    patient_age_years=7.5,
)


def a_rule(**parts: Any) -> ApplicabilityRule:
    return ApplicabilityRule.model_validate(
        {"modality": {"values": ["MR"], "absent": "refuse"}, "sop_class_uid": [MR]} | parts
    )


PARTS: dict[str, dict[str, Any]] = {
    "laterality": {"values": ["L"], "absent": "refuse"},
    "series_description": {"patterns": ["*t2*", "ax t1*"], "absent": "refuse"},
    "calling_ae_title": {"values": ["MR1"], "absent": "refuse"},
    "patient_age": {"at_least_years": 5, "below_years": 18, "absent": "refuse"},
}
OTHERS = {
    "laterality": "R",
    "series_description": "SAG AX T1",
    "calling_ae_title": "mr1",
    "patient_age": 18.0,
}
ATTRIBUTE = {"patient_age": "patient_age_years"}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_says_why_it_fits_and_why_not(part: str) -> None:
    rule = a_rule(**{part: PARTS[part]})
    other = T1_OF_A_CHILD.model_copy(update={ATTRIBUTE.get(part, part): OTHERS[part]})

    fitting, differing = rule.verdicts(T1_OF_A_CHILD), rule.verdicts(other)

    assert all(each.fits for each in fitting)
    [why] = [each.reason for each in differing if not each.fits]
    assert " not " in why
    assert why.replace(" not ", " ") in {each.reason for each in fitting}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("absent", WhenAbsent)
def test_what_is_absent_is_as_the_rule_says(part: str, absent: WhenAbsent) -> None:
    rule = a_rule(**{part: PARTS[part] | {"absent": absent}})
    silent = T1_OF_A_CHILD.model_copy(update={ATTRIBUTE.get(part, part): None})

    mismatches = rule.mismatches(silent)

    assert bool(mismatches) is (absent is WhenAbsent.REFUSE)
    assert all("is absent" in each for each in mismatches)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("T1", "AX T1", False),
        ("*T1", "AX T1", True),
        ("AX ?1", "ax t1", True),
        ("AX T1 [post]", "AX T1  [POST] ", True),
        ("AX [TP]1", "AX T1", False),
        (".*", "AX T1", False),
        ("AX T1", "AX T1\nAX T1", False),
    ],
)
def test_a_pattern_is_anchored_and_only_star_and_question_mark_are_special(
    pattern: str, text: str, fits: bool
) -> None:
    rule = a_rule(series_description={"patterns": [pattern], "absent": "refuse"})

    mismatches = rule.mismatches(T1_OF_A_CHILD.model_copy(update={"series_description": text}))

    assert (mismatches == ()) is fits


def test_no_pattern_takes_forever() -> None:
    rule = a_rule(series_description={"patterns": ["*a" * 31 + "*b"], "absent": "refuse"})

    # With backtracking this would outlive the test run.
    assert rule.mismatches(T1_OF_A_CHILD.model_copy(update={"series_description": "a" * 10_000}))


@given(st.text(max_size=70), st.text(max_size=100))
def test_any_pattern_that_is_taken_can_be_compared(pattern: str, text: str) -> None:
    try:
        rule = a_rule(series_description={"patterns": [pattern], "absent": "match"})
    except ValidationError:
        assert not pattern.strip() or len(pattern.strip()) > 64
        return

    rule.mismatches(T1_OF_A_CHILD.model_copy(update={"series_description": text}))


@pytest.mark.parametrize(
    "range_",
    [{}, {"at_least_years": 18, "below_years": 18}, {"at_least_years": -1}, {"below_years": 0}],
)
def test_an_age_range_with_nobody_in_it_is_refused(range_: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=r"patient_age|at_least_years|below_years"):
        a_rule(patient_age=range_ | {"absent": "match"})


@given(st.text(min_size=1, max_size=20), st.floats(min_value=0, max_value=150))
def test_no_verdict_repeats_what_the_instance_says(words: str, age: float) -> None:
    marked = T1_OF_A_CHILD.model_copy(
        update={
            "laterality": "\x01" + words,
            "series_description": "\x01" + words,
            "calling_ae_title": "\x01" + words,
            "patient_age_years": age + 0.0625 / 3,
        }
    )

    reasons = [each.reason for each in a_rule(**PARTS).verdicts(marked)]

    assert not any("\x01" in reason or f"{age + 0.0625 / 3:g} " in reason for reason in reasons)


def test_the_rule_that_the_documentation_shows_is_one() -> None:
    text = (CHECKOUT / "docs" / "models.md").read_text()
    [shown] = re.findall(r"^```yaml\n(applies_to:.*?)^```", text, re.MULTILINE | re.DOTALL)

    rule = ApplicabilityRule.model_validate(yaml.safe_load(shown)["applies_to"])

    assert set(rule.model_fields_set) == set(ApplicabilityRule.model_fields)


@pytest.mark.parametrize(
    ("position", "code", "fits"),
    [
        (None, None, True),
        ("PA", None, True),
        (None, "AP", True),
        ("PA", "PA", True),
        (None, "LL", False),
        ("LL", None, False),
        # What contradicts itself is not read.
        ("PA", "LL", False),
        ("LL", "PA", False),
    ],
)
def test_a_view_is_told_by_term_or_by_code(
    position: str | None, code: str | None, fits: bool
) -> None:
    rule = a_rule(view_position={"values": ["PA", "AP"], "absent": "match"})
    shown = T1_OF_A_CHILD.model_copy(update={"view_position": position, "view_code": code})

    assert (rule.mismatches(shown) == ()) is fits


def test_where_the_code_tells_the_view_the_term_may_be_absent() -> None:
    rule = a_rule(view_position={"values": ["PA"], "absent": "refuse"})

    shown = T1_OF_A_CHILD.model_copy(update={"view_code": "PA"})

    assert rule.mismatches(shown) == ()
