"""What only RabbitMQ can do to a message: bring what we never sent, and give up what we did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pytest

from message_contracts import catalogue, topology
from message_contracts.ingest import StudyOpened
from service_runtime.database import Database
from service_runtime.messaging import dead_letters
from service_runtime.messaging.consumer import Handling
from service_runtime.messaging.rabbitmq import declare
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.journeys import (
    Form,
    noted,
    notes,
    send_all,
    study_opened,
    wait_for_effects,
)
from tests.peers.processes import wait_until
from tests.peers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.parametrize("form", ["rabbitmq"], indirect=True)


@pytest.fixture
def channel(form: Form) -> Iterator[Any]:
    """Give a client of somebody else's, beside ours."""
    parameters = pika.URLParameters(form.broker_url)
    declare(parameters)
    with pika.BlockingConnection(parameters) as connection:
        yield connection.channel()


def test_every_queue_is_a_quorum_queue_and_dead_letters_at_least_once(
    form: Form, rabbitmq: RabbitMQ, channel: Any
) -> None:
    queues = {queue["name"]: queue for queue in rabbitmq.queues(form.broker_url)}

    expected = {queue.name for queue in topology.QUEUES.values()}
    dead = {queue.dead_letter_queue for queue in topology.QUEUES.values()}
    assert set(queues) == expected | dead
    assert {queue["type"] for queue in queues.values()} == {"quorum"}
    for name in expected:
        arguments = queues[name]["arguments"]
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"
        assert arguments["x-delivery-limit"] == 20


def test_declaring_again_changes_nothing(form: Form, channel: Any) -> None:
    declare(pika.URLParameters(form.broker_url))


def test_what_the_broker_gave_up_becomes_a_dead_letter_with_its_effect(
    channel: Any, database: Database, consume: Consume
) -> None:
    envelope = study_opened()
    channel.basic_publish(topology.EXCHANGE, StudyOpened.TYPE, catalogue.encode(envelope))
    method = wait_until(
        lambda: channel.basic_get(topology.WORKFLOW)[0], what="the message is there"
    )
    channel.basic_nack(method.delivery_tag, requeue=False)

    consume({topology.WORKFLOW: Handling(noted, on_exhausted=noted)})

    assert wait_for_effects(database, 1) == {str(envelope.id): 1}
    [dead] = dead_letters.list_open(database)
    assert (dead.queue, dead.message_id) == (topology.WORKFLOW, str(envelope.id))
    assert notes(database) == ["the broker gave it up: rejected"]

    with database.transaction() as transaction:
        dead_letters.replay(transaction, dead.id, who="ops", why="it was a mistake")
    wait_until(lambda: len(notes(database)) == 2, what="handled after all")


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (b"hello", {}),
        (b"\x00\xff", {"message_id": "x" * 200, "type": "y" * 255}),
        (b"{}", {"headers": {"x-countersign-attempt": "many"}}),
    ],
)
def test_what_somebody_else_published_is_kept_and_the_next_message_handled(
    channel: Any,
    database: Database,
    consume: Consume,
    body: bytes,
    properties: dict[str, Any],
) -> None:
    envelope = study_opened()
    channel.basic_publish("", topology.WORKFLOW, body, pika.BasicProperties(**properties))
    channel.basic_publish("", topology.WORKFLOW, catalogue.encode(envelope))

    consume({topology.WORKFLOW: noted})

    assert wait_for_effects(database, 1) == {str(envelope.id): 1}
    [dead] = dead_letters.list_open(database)
    assert dead.body == body
    assert dead.message_id is None


def test_consumers_come_back_when_somebody_deletes_their_queue(
    form: Form, rabbitmq: RabbitMQ, channel: Any, database: Database, consume: Consume
) -> None:
    first, second = study_opened(1), study_opened(2)
    consume({topology.WORKFLOW: noted})
    send_all(database, first)
    wait_for_effects(database, 1)

    channel.queue_delete(topology.WORKFLOW)

    def declared_again() -> bool:
        return topology.WORKFLOW in {each["name"] for each in rabbitmq.queues(form.broker_url)}

    wait_until(declared_again, what="the queue is there again")
    send_all(database, second)
    assert wait_for_effects(database, 2) == {str(first.id): 1, str(second.id): 1}
