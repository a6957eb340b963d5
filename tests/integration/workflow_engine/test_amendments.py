"""Images that come after the report: the signed one stays in force until the next is signed."""

from __future__ import annotations

import pytest

from message_contracts.case import CaseStatus
from message_contracts.delivery import ReportRequested
from message_contracts.destination import PacsDestination
from tests.integration.workflow_engine.signed_case import AT_EVERY_SIGNATURE, REJECT, UID, in_force
from tests.workflow_journey import Ward
from workflow_engine.commands import reject
from workflow_engine.refusals import IllegalTransition


@pytest.fixture
def destinations() -> tuple[PacsDestination, ...]:
    return AT_EVERY_SIGNATURE


@pytest.fixture
def amending(analyzed: Ward) -> Ward:
    analyzed.signed(UID)
    analyzed.receive(UID, 2)
    analyzed.complete(UID, 2)
    return analyzed


def test_a_late_image_leaves_the_signed_report_in_force(amending: Ward) -> None:
    case = amending.case(UID)

    assert (case.status, case.stage, case.version, case.report_version) == (
        CaseStatus.AMENDING,
        None,
        2,
        1,
    )
    assert in_force(amending, 1) == {"doctor", "pharmacist", "admin"}


def test_nobody_signs_an_amendment_before_the_model_has_answered(amending: Ward) -> None:
    with pytest.raises(IllegalTransition):
        amending.verified(UID)


def test_an_amendment_takes_the_place_of_the_report_when_it_is_signed(amending: Ward) -> None:
    amending.deliver(amending.completed(UID, 2))

    ready = amending.signed(UID)

    reports = [
        each.body.case_version for each in amending.sent() if isinstance(each.body, ReportRequested)
    ]
    assert (ready.status, ready.report_version) == (CaseStatus.REPORT_READY, 2)
    assert reports == [1, 2]
    assert {("REPORT_READY", 1), ("REPORT_READY", 2)} <= set(amending.attached())


def test_a_report_that_another_took_the_place_of_stays_signed(amending: Ward) -> None:
    amending.deliver(amending.completed(UID, 2))
    amending.signed(UID)
    amending.receive(UID, 3)

    amending.complete(UID, 3)

    assert len(in_force(amending, 1)) == len(in_force(amending, 2)) == 3


def test_a_later_image_during_an_amendment_begins_it_again(amending: Ward) -> None:
    amending.deliver(amending.completed(UID, 2))
    amending.verified(UID)
    amending.receive(UID, 3)

    amending.complete(UID, 3)

    case = amending.case(UID)
    assert (case.status, case.stage, case.version, case.report_version) == (
        CaseStatus.AMENDING,
        None,
        3,
        1,
    )
    assert in_force(amending, 2) == set()
    assert len(in_force(amending, 1)) == 3


def test_a_rejected_amendment_leaves_the_report(amending: Ward) -> None:
    amending.deliver(amending.completed(UID, 2))
    amending.verified(UID)

    ended = reject(amending.desk, amending.request(UID, "pharmacist"), REJECT)

    assert (ended.status, ended.version_shown) == (CaseStatus.REPORT_READY, 1)
    assert len(in_force(amending, 1)) == 3
    assert in_force(amending, 2) == set()
    assert ("REPORT_READY", 2) not in amending.attached()
