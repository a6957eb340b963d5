"""A request that waits in the routine lane is overtaken by itself, in every form."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import select

from imaging_store.instances import open_instance_store
from inference_worker.handlers import Worker
from inference_worker.results import LoadedModel
from message_contracts import catalogue, topology
from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceFailed, ModelReference, Urgency
from message_contracts.overtaking import overtaking, overtaking_id
from service_runtime.database import Database
from service_runtime.errors import PermanentError
from service_runtime.messaging.at_once import AtOnce
from service_runtime.messaging.consumer import Effect
from service_runtime.messaging.tables import inbox, message
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.journeys import inference_requested, send_all
from tests.peers.processes import wait_until

ROUTINE, URGENT = topology.INFERENCE_ROUTINE, topology.INFERENCE_URGENT


class Unusable:
    """Models that answer at once: they fail."""

    def of(self, _reference: ModelReference) -> LoadedModel:
        raise PermanentError("It cannot read.")


def handled(database: Database) -> set[tuple[str, str]]:
    with database.reading() as connection:
        rows = connection.execute(select(inbox.c.queue, inbox.c.message_id)).all()
    return {(row.queue, row.message_id) for row in rows}


def answers(database: Database) -> list[Envelope]:
    with database.reading() as connection:
        bodies = connection.execute(select(message.c.body)).scalars().all()
    found = [catalogue.decode(bytes(body)) for body in bodies]
    return [each for each in found if isinstance(each.body, InferenceFailed)]


def test_a_request_that_was_made_urgent_is_answered_once_and_before_what_waits(
    database: Database, consume: Consume, tmp_path: Path
) -> None:
    begun: list[str] = []
    store = open_instance_store(f"file:{tmp_path / 'store'}")
    worker = Worker(database, store, Unusable(), ZoneInfo("UTC"), lambda: datetime.now(UTC))

    def handle(envelope: Envelope) -> Effect:
        begun.append(str(envelope.id))
        return worker.on_inference_requested(envelope)

    other, waiting = (inference_requested(Urgency.ROUTINE) for _ in range(2))
    urgent = Envelope.of(
        overtaking(waiting), source="test", time=waiting.time, id=overtaking_id(waiting.id)
    )
    send_all(database, other, waiting, urgent)

    consume({URGENT: handle, ROUTINE: handle}, at_once=AtOnce(1, of_later_queues=1), prefetch=1)

    everything = {(ROUTINE, str(other.id)), (ROUTINE, str(waiting.id)), (URGENT, str(urgent.id))}
    wait_until(lambda: handled(database) == everything, timeout_s=60, what="all are handled")
    assert sorted(each.causation_id for each in answers(database)) == sorted([other.id, urgent.id])
    assert begun.index(str(urgent.id)) < begun.index(str(waiting.id))
