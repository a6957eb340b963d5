"""A request is answered once for each time that it was asked for, in every form of messaging."""

from __future__ import annotations

from sqlalchemy import func, select

from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceRequested, Urgency
from service_runtime.database import Database, Transaction
from service_runtime.messaging import dead_letters
from service_runtime.messaging.answering import answer
from service_runtime.messaging.consumer import Effect, Handling
from service_runtime.messaging.tables import message
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.journeys import (
    WORKFLOW,
    inference_requested,
    refused,
    send_all,
    study_opened,
    wait_for_dead_letters,
)


def answers(database: Database) -> int:
    of_type = message.c.routing_key.startswith(InferenceRequested.TYPE)
    with database.reading() as connection:
        return connection.execute(select(func.count()).where(of_type)).scalar_one()


def test_the_same_answer_is_told_anew_after_each_replay_and_once_until_then(
    database: Database, consume: Consume
) -> None:
    given_up = inference_requested(Urgency.ROUTINE)

    def tell(envelope: Envelope, _reason: str) -> Effect:
        def effect(transaction: Transaction) -> None:
            for _ in range(2):
                answer(transaction, envelope, given_up.body, source="tests", time=given_up.time)

        return effect

    consume({WORKFLOW: Handling(refused, tell)})
    send_all(database, study_opened())

    told = []
    for _ in range(3):
        [letter] = wait_for_dead_letters(database)
        told.append(answers(database))
        with database.transaction() as transaction:
            dead_letters.replay(transaction, letter.id, who="ops@example.org", why="again")

    assert told == [1, 2, 3]
