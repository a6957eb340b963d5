"""A study that an urgent sender sent is asked about in the urgent lane."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, update

from imaging_store.schema.administration import application_entity
from imaging_store.schema.ingest import instance
from message_contracts.inference import Urgency
from tests.workflow_journey import NOON, Ward

UID = "1.2.826.0.1.8"


@pytest.mark.parametrize("urgency", Urgency)
def test_the_senders_entry_says_how_soon_a_study_is_read(ward: Ward, urgency: Urgency) -> None:
    ward.receive(UID)
    with ward.database.transaction() as transaction:
        transaction.connection.execute(
            insert(application_entity),
            {
                "ae_title": "ER_CT",
                "networks": [],
                "urgency": urgency,
                "commitment": False,
                "changed_at": NOON,
                "changed_by": "an admin",
            },
        )
        transaction.connection.execute(update(instance).values(calling_ae_title="ER_CT"))

    ward.complete(UID)

    assert [each.urgency for each in ward.requested_models()] == [urgency]


def test_an_image_that_was_sent_with_high_priority_makes_a_study_urgent(ward: Ward) -> None:
    ward.receive(UID)
    urgent = ward.receive(UID)
    with ward.database.transaction() as transaction:
        transaction.connection.execute(
            update(instance).where(instance.c.sop_instance_uid == urgent).values(urgent=True)
        )

    ward.complete(UID)

    assert [each.urgency for each in ward.requested_models()] == [Urgency.URGENT]


def test_an_unlisted_sender_is_routine(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)

    assert [each.urgency for each in ward.requested_models()] == [Urgency.ROUTINE]
