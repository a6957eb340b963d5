from dataclasses import replace
from datetime import UTC, datetime

import pytest

from message_contracts.case import CaseStatus, Release, Stage
from message_contracts.destination import PacsDestination
from workflow_engine.case import Case, open_case, under_holds
from workflow_engine.releases import Results, due
from workflow_engine.signing import Decision

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
S = CaseStatus
DESTINATIONS = [
    PacsDestination(name=rule, ae_title="PACS", host="pacs", port=104, release=rule)
    for rule in Release
]
EARLY, VERIFIED, FINAL = Release


def a_case(status: CaseStatus, *, version: int = 1, report_version: int | None = None) -> Case:
    return replace(
        open_case("1.2.3", NOON), status=status, version=version, report_version=report_version
    )


def names(case: Case, decision: Decision | None, *requested: str) -> list[str]:
    results = Results(("1.2.3.4",), decision)
    return [each.name for each in due(case, results, DESTINATIONS, requested)]


@pytest.mark.parametrize(
    ("status", "decision", "released"),
    [
        (S.PENDING_AI, None, []),
        (S.AI_ANALYZED, None, [EARLY]),
        (S.DOCTOR_VERIFIED, Decision.AGREE, [EARLY, VERIFIED]),
        (S.PHARMACIST_COMPLETED, Decision.AGREE, [EARLY, VERIFIED]),
        (S.REPORT_READY, Decision.AGREE, [EARLY, VERIFIED, FINAL]),
        (S.DOCTOR_VERIFIED, Decision.OVERRIDE, []),
        (S.REPORT_READY, Decision.OVERRIDE, []),
        (S.REPORT_READY, Decision.UNINTERPRETABLE, []),
        (S.RETURNED, None, [EARLY]),
        (S.RETURNED, Decision.AGREE, [EARLY, VERIFIED]),
        (S.REJECTED, None, []),
        (S.REJECTED, Decision.AGREE, []),
    ],
)
def test_each_destination_has_its_own_moment(status, decision, released) -> None:
    case = a_case(status, report_version=1 if status is S.REPORT_READY else None)

    assert names(case, decision) == released


def test_of_an_amendment_nothing_goes_before_all_its_models_have_answered() -> None:
    amending = a_case(S.AMENDING, version=2, report_version=1)

    assert names(amending, None) == []
    assert names(replace(amending, stage=Stage.DOCTOR), None) == [EARLY]


def test_a_destination_is_sent_to_once() -> None:
    case = a_case(S.REPORT_READY, report_version=1)

    assert names(case, Decision.AGREE, EARLY, VERIFIED) == [FINAL]


def test_nothing_leaves_on_hold() -> None:
    case = under_holds(a_case(S.REPORT_READY, report_version=1), ["identity_conflict"], NOON)

    assert names(case, Decision.AGREE) == []


def test_a_rejected_amendment_sends_nothing() -> None:
    case = a_case(S.REPORT_READY, version=2, report_version=1)

    assert names(case, None) == []


def test_without_results_there_is_nothing_to_send() -> None:
    case = a_case(S.REPORT_READY, report_version=1)

    assert due(case, Results((), Decision.AGREE), DESTINATIONS, ()) == ()
