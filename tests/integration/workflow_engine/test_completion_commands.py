from __future__ import annotations

import pytest
from sqlalchemy import select, update

from imaging_store.schema.ingest import study
from imaging_store.schema.workflow import history, intervention
from message_contracts.case import CaseStatus
from message_contracts.intake import CompletionRequested
from tests.workflow_journey import NOON, Ward
from workflow_engine.commands import Words, force_completion
from workflow_engine.reasons import CompletionRequestReason
from workflow_engine.refusals import IllegalTransition, StaleCase, WrongRole

UID = "1.2.826.0.1.1"
WORDS = Words(CompletionRequestReason.REST_WILL_NOT_COME, "The scanner is down.")


@pytest.fixture
def arriving(ward: Ward) -> Ward:
    ward.receive(UID)
    wait_for_more(ward, True)
    ward.opened(UID)
    return ward


def wait_for_more(ward: Ward, is_awaited: bool) -> None:
    since = NOON if is_awaited else None
    with ward.database.transaction() as transaction:
        transaction.connection.execute(update(study).values(pending_since=since, quiet_until=since))


def requested(ward: Ward) -> list[CompletionRequested]:
    return [each.body for each in ward.sent() if isinstance(each.body, CompletionRequested)]


def test_an_admin_has_an_arriving_study_taken_as_complete(arriving: Ward) -> None:
    case = force_completion(arriving.desk, arriving.request(UID, "admin"), WORDS)

    assert requested(arriving) == [CompletionRequested(study_instance_uid=UID)]
    assert case.status is CaseStatus.RECEIVING
    with arriving.database.reading() as connection:
        [act] = connection.execute(select(intervention)).all()
        told = connection.execute(select(history).order_by(history.c.sequence)).all()[-1]
    assert (act.act, act.reason_code, act.notes) == (
        "completion",
        "rest_will_not_come",
        "The scanner is down.",
    )
    assert (told.trigger, told.actor) == ("completion_requested", str(act.user_id))


def test_late_images_may_be_taken_as_complete_too(ward: Ward) -> None:
    ward.analyzed(UID)
    wait_for_more(ward, True)

    force_completion(ward.desk, ward.request(UID, "admin"), WORDS)

    assert len(requested(ward)) == 1


def test_a_study_that_nobody_waits_for_is_complete_already(arriving: Ward) -> None:
    wait_for_more(arriving, False)

    with pytest.raises(IllegalTransition):
        force_completion(arriving.desk, arriving.request(UID, "admin"), WORDS)

    assert requested(arriving) == []


def test_only_an_admin_may(arriving: Ward) -> None:
    with pytest.raises(WrongRole):
        force_completion(arriving.desk, arriving.request(UID, "doctor"), WORDS)


def test_who_has_seen_an_older_revision_is_told_so(arriving: Ward) -> None:
    request = arriving.request(UID, "admin")
    seen = arriving.case(UID).revision
    force_completion(arriving.desk, request, WORDS)

    with pytest.raises(StaleCase):
        force_completion(
            arriving.desk, type(request)(request.case_id, request.signer, request.at, seen), WORDS
        )

    assert len(requested(arriving)) == 1
