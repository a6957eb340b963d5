"""A person has a study read before others, also where it waits already."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, select

from imaging_store.schema.workflow import history, intervention
from message_contracts.case import CaseStatus
from message_contracts.inference import InferenceRequested, Urgency
from message_contracts.overtaking import overtaking_id
from service_runtime.messaging import tables
from service_runtime.messaging.forgetting import REMEMBERED, forget
from tests.workflow_journey import Ward
from workflow_engine.commands import (
    IllegalTransition,
    StaleCase,
    UrgencyReason,
    Words,
    WrongRole,
    expedite,
)

UID = "1.2.826.0.1.9"
WORDS = Words(UrgencyReason.PATIENT_IN_DANGER, "A stroke, perhaps.")


@pytest.fixture
def waiting(ward: Ward) -> Ward:
    ward.receive(UID)
    ward.opened(UID)
    ward.complete(UID)
    return ward


@pytest.mark.parametrize("role", ["doctor", "admin"])
def test_what_waits_is_asked_for_once_more_in_the_urgent_lane(waiting: Ward, role: str) -> None:
    case = expedite(waiting.desk, waiting.request(UID, role), WORDS)

    routine, urgent = (each for each in waiting.sent() if isinstance(each.body, InferenceRequested))
    assert urgent.id == overtaking_id(routine.id)
    assert urgent.time == routine.time
    assert urgent.body == routine.body.model_copy(update={"urgency": Urgency.URGENT})
    assert case.status is CaseStatus.PENDING_AI
    with waiting.database.reading() as connection:
        [act] = connection.execute(select(intervention)).all()
        told = connection.execute(select(history).order_by(history.c.sequence)).all()[-1]
    assert (act.act, act.reason_code, act.notes) == (
        "urgency",
        "patient_in_danger",
        "A stroke, perhaps.",
    )
    assert (told.trigger, told.actor) == ("made_urgent", str(act.user_id))


def test_whichever_is_answered_second_changes_nothing(waiting: Ward) -> None:
    expedite(waiting.desk, waiting.request(UID, "doctor"), WORDS)

    waiting.deliver(waiting.completed(UID))
    waiting.deliver(waiting.completed(UID))

    assert waiting.case(UID).status is CaseStatus.AI_ANALYZED


def test_a_study_that_is_still_arriving_is_urgent_when_it_is_complete(ward: Ward) -> None:
    ward.receive(UID)
    ward.opened(UID)

    expedite(ward.desk, ward.request(UID, "doctor"), WORDS)
    ward.complete(UID)
    ward.receive(UID, 2)
    ward.complete(UID, 2)

    assert [each.urgency for each in ward.requested_models()] == [Urgency.URGENT] * 2


def test_another_study_stays_as_it_is(waiting: Ward) -> None:
    expedite(waiting.desk, waiting.request(UID, "doctor"), WORDS)

    waiting.receive("1.2.826.0.1.10")
    waiting.complete("1.2.826.0.1.10")

    assert waiting.requested_models()[-1].urgency is Urgency.ROUTINE


def test_what_cannot_be_sooner_is_refused(waiting: Ward) -> None:
    with pytest.raises(WrongRole):
        expedite(waiting.desk, waiting.request(UID, "pharmacist"), WORDS)
    seen = waiting.request(UID, "doctor")
    expedite(waiting.desk, seen, WORDS)
    with pytest.raises(IllegalTransition, match="urgent already"):
        expedite(waiting.desk, waiting.request(UID, "doctor"), WORDS)


def test_what_has_been_read_is_not_made_urgent(ward: Ward) -> None:
    ward.analyzed(UID)

    with pytest.raises(IllegalTransition, match="no model is waited for"):
        expedite(ward.desk, ward.request(UID, "doctor"), WORDS)


def test_what_waits_longer_than_requests_are_kept_is_refused_with_the_remedy(
    waiting: Ward,
) -> None:
    with waiting.database.transaction() as transaction:
        # As if a broker had it.
        transaction.connection.execute(delete(tables.delivery))
    forget(waiting.database, datetime.now(UTC) + 2 * REMEMBERED)

    with pytest.raises(IllegalTransition, match="replay its dead letter"):
        expedite(waiting.desk, waiting.request(UID, "doctor"), WORDS)

    with waiting.database.reading() as connection:
        assert connection.execute(select(intervention)).all() == []
        triggers = connection.execute(select(history.c.trigger)).scalars().all()
    assert "made_urgent" not in triggers


def test_who_has_not_seen_the_case_as_it_is_is_refused(waiting: Ward) -> None:
    with pytest.raises(StaleCase):
        expedite(waiting.desk, replace(waiting.request(UID, "doctor"), revision=1), WORDS)
