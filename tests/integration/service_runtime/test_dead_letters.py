"""What is given up is kept, replayed or discarded, in every form of messaging."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from message_contracts.envelope import Envelope
from message_contracts.ingest import StudyOpened
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging import dead_letters, outbox
from service_runtime.messaging.consumer import Effect, Handling
from service_runtime.messaging.tables import RELAY_QUEUE, dead_letter
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.journeys import (
    WORKFLOW,
    Form,
    effects,
    noted,
    refused,
    send_all,
    study_opened,
    wait_for_dead_letters,
    wait_for_effects,
)


def test_a_dead_letter_is_made_even_where_its_effect_fails(
    database: Database, consume: Consume
) -> None:
    def on_exhausted(envelope: Envelope, _reason: str) -> Effect:
        def effect(transaction: Transaction) -> None:
            noted(envelope)(transaction)
            raise LookupError

        return effect

    consume({WORKFLOW: Handling(refused, on_exhausted)})
    send_all(database, study_opened())

    wait_for_dead_letters(database)
    assert effects(database) == {}


def test_a_replayed_dead_letter_is_handled_again(database: Database, consume: Consume) -> None:
    repaired: list[bool] = []

    def handle(envelope: Envelope) -> Effect:
        if not repaired:
            raise PermanentError("model: not installed")
        return noted(envelope)

    envelope = study_opened()
    consume({WORKFLOW: handle})
    send_all(database, envelope)
    [dead] = wait_for_dead_letters(database)

    repaired.append(True)
    with database.transaction() as transaction:
        dead_letters.replay(transaction, dead.id, who="ops@example.org", why="model installed")

    assert wait_for_effects(database, 1) == {str(envelope.id): 1}
    assert dead_letters.list_open(database) == []
    with database.reading() as connection:
        row = connection.execute(select(dead_letter)).one()
    assert (row.resolved_by, row.resolution, row.why) == (
        "ops@example.org",
        "replayed",
        "model installed",
    )


def test_a_message_given_up_twice_is_two_dead_letters_one_after_the_other(
    database: Database, consume: Consume
) -> None:
    consume({WORKFLOW: refused})
    send_all(database, study_opened())
    [first] = wait_for_dead_letters(database)

    with database.transaction() as transaction:
        dead_letters.replay(transaction, first.id, who="ops", why="again")

    [second] = wait_for_dead_letters(database)
    assert second.id != first.id
    assert second.message_id == first.message_id


def test_a_discarded_dead_letter_stays_with_who_and_why(
    database: Database, consume: Consume
) -> None:
    consume({WORKFLOW: refused})
    send_all(database, study_opened())
    [dead] = wait_for_dead_letters(database)

    with database.transaction() as transaction:
        dead_letters.discard(transaction, dead.id, who="ops", why="a test study")

    assert dead_letters.list_open(database) == []
    with pytest.raises(dead_letters.NoSuchDeadLetter), database.transaction() as transaction:
        dead_letters.replay(transaction, dead.id, who="ops", why="changed my mind")
    with database.reading() as connection:
        row = connection.execute(select(dead_letter)).one()
    assert (row.resolved_by, row.resolution, row.why) == ("ops", "discarded", "a test study")


def test_an_undecodable_message_is_a_dead_letter_that_can_only_be_discarded(
    form: Form, database: Database, consume: Consume
) -> None:
    message_id = str(study_opened().id)
    with database.transaction() as transaction:
        assert outbox.keep(transaction, message_id, StudyOpened.TYPE, b"\xff not JSON \x00")
        outbox.deliver(transaction, message_id, [RELAY_QUEUE if form.via_broker else WORKFLOW])

    consume({WORKFLOW: noted})

    [dead] = wait_for_dead_letters(database)
    assert dead.body == b"\xff not JSON \x00"
    assert dead.message_id == message_id
    assert dead.reason == "the body is not JSON"
    with pytest.raises(dead_letters.NotReplayable), database.transaction() as transaction:
        dead_letters.replay(transaction, dead.id, who="ops", why="hope")
    assert [each.id for each in dead_letters.list_open(database)] == [dead.id]
