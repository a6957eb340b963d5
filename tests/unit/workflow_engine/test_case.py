from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from message_contracts.case import CaseStatus, Stage
from workflow_engine.case import (
    TRANSITIONS,
    Case,
    Trigger,
    advance,
    completion,
    is_news,
    open_case,
    rejection,
    under_holds,
)
from workflow_engine.refusals import IllegalTransition, OnHold

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WITH_A_REPORT = {
    Trigger.AMENDMENT_MODEL_ASKED,
    Trigger.AMENDMENT_NO_RULE_FITS,
    Trigger.AMENDMENT_REJECTED,
}


def a_case(
    status: CaseStatus, stage: Stage | None = None, report_version: int | None = None
) -> Case:
    return replace(
        open_case("1.2.3", NOON),
        status=status,
        stage=stage,
        version=2,
        report_version=report_version,
        reason_code="other",
    )


@pytest.mark.parametrize(("pair", "transition"), TRANSITIONS.items(), ids=str)
def test_every_row_of_the_table_takes_a_case_where_it_says(pair, transition) -> None:
    status, trigger = pair
    for stage in transition.from_stages:
        case = a_case(status, stage, report_version=1 if trigger in WITH_A_REPORT else None)

        advanced = advance(case, trigger, NOON)

        assert (advanced.status, advanced.stage) == (transition.to_status, transition.stage)
        assert advanced.revision == case.revision + 1


@pytest.mark.parametrize(
    ("status", "trigger"), sorted(set(product(CaseStatus, Trigger)) - set(TRANSITIONS))
)
def test_any_other_trigger_is_refused(status: CaseStatus, trigger: Trigger) -> None:
    for stage, report_version in product([None, *Stage], [None, 1]):
        with pytest.raises(IllegalTransition):
            advance(a_case(status, stage, report_version), trigger, NOON)


@pytest.mark.parametrize(
    ("status", "trigger", "stage"),
    [
        (status, trigger, stage)
        for (status, trigger), row in TRANSITIONS.items()
        for stage in [None, *Stage]
        if stage not in row.from_stages
    ],
)
def test_a_row_for_one_stage_is_not_for_another(status, trigger, stage) -> None:
    with pytest.raises(IllegalTransition):
        advance(a_case(status, stage), trigger, NOON)


def test_a_returned_case_is_signed_only_by_the_stage_it_was_returned_to() -> None:
    case = a_case(CaseStatus.RETURNED, Stage.PHARMACIST)

    with pytest.raises(IllegalTransition, match="waiting for the pharmacist"):
        advance(case, Trigger.DOCTOR_SIGNED, NOON)


def test_an_approval_puts_the_version_in_force() -> None:
    case = a_case(CaseStatus.PHARMACIST_COMPLETED, Stage.ADMIN)

    assert advance(case, Trigger.APPROVED, NOON).report_version == case.version


def test_a_case_with_a_signed_report_cannot_end_without_one() -> None:
    case = a_case(CaseStatus.DOCTOR_VERIFIED, Stage.PHARMACIST, report_version=1)

    with pytest.raises(IllegalTransition, match="a signed report is in force"):
        advance(case, Trigger.REJECTED, NOON)


def test_rejecting_an_amendment_shows_the_report_in_force() -> None:
    case = a_case(CaseStatus.DOCTOR_VERIFIED, Stage.PHARMACIST, report_version=1)

    ended = advance(case, rejection(case), NOON)

    assert (ended.status, ended.report_version, ended.version_shown) == (
        CaseStatus.REPORT_READY,
        1,
        1,
    )


def test_an_amendment_without_a_report_is_refused() -> None:
    case = a_case(CaseStatus.DOCTOR_VERIFIED, Stage.PHARMACIST)

    with pytest.raises(IllegalTransition, match="no signed report is in force"):
        advance(case, Trigger.AMENDMENT_REJECTED, NOON)


@pytest.mark.parametrize(
    "trigger", [Trigger.PHARMACIST_SIGNED, Trigger.RETURNED_TO_DOCTOR], ids=str
)
def test_nobody_signs_or_returns_a_case_on_hold(trigger: Trigger) -> None:
    held = under_holds(
        a_case(CaseStatus.DOCTOR_VERIFIED, Stage.PHARMACIST), ["identity_conflict"], NOON
    )

    with pytest.raises(OnHold, match="identity_conflict"):
        advance(held, trigger, NOON)


def test_a_case_on_hold_can_be_rejected() -> None:
    held = under_holds(a_case(CaseStatus.AI_ANALYZED, Stage.DOCTOR), ["identity_conflict"], NOON)

    assert advance(held, Trigger.REJECTED, NOON).status is CaseStatus.REJECTED


def test_results_advance_a_case_on_hold() -> None:
    held = under_holds(a_case(CaseStatus.PENDING_AI), ["instance_conflict"], NOON)

    advanced = advance(held, Trigger.INFERENCE_COMPLETED, NOON)

    assert (advanced.status, advanced.on_hold) == (CaseStatus.AI_ANALYZED, True)


def test_a_released_case_has_no_hold_reason() -> None:
    held = under_holds(a_case(CaseStatus.AI_ANALYZED, Stage.DOCTOR), ["identity_conflict"], NOON)

    released = under_holds(held, [], NOON)

    assert (released.on_hold, released.hold_reason) == (False, None)


@pytest.mark.parametrize(
    ("status", "study_version", "news"),
    [
        (CaseStatus.RECEIVING, 2, True),
        (CaseStatus.RECEIVING, 1, False),
        (CaseStatus.PENDING_AI, 2, False),
        (CaseStatus.PENDING_AI, 3, True),
        (CaseStatus.REPORT_READY, 1, False),
    ],
)
def test_a_version_is_taken_up_once_and_in_order(status, study_version, news) -> None:
    assert is_news(a_case(status), study_version) is news


@pytest.mark.parametrize(
    ("report_version", "model_asked", "trigger"),
    [
        (None, True, Trigger.MODEL_ASKED),
        (None, False, Trigger.NO_RULE_FITS),
        (1, True, Trigger.AMENDMENT_MODEL_ASKED),
        (1, False, Trigger.AMENDMENT_NO_RULE_FITS),
    ],
)
def test_a_signed_report_makes_a_new_version_an_amendment(
    report_version, model_asked, trigger
) -> None:
    case = a_case(CaseStatus.REPORT_READY, report_version=report_version)

    assert completion(case, model_asked=model_asked) is trigger
