"""Several messages handled at the same time, in every form, and room kept for the urgent ones."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from message_contracts import topology
from message_contracts.envelope import Envelope
from message_contracts.inference import Urgency
from service_runtime.database import Database
from service_runtime.messaging.at_once import AtOnce
from service_runtime.messaging.consumer import Consumer, Effect
from service_runtime.messaging.forms import Messaging
from service_runtime.messaging.tables import delivery
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.journeys import (
    Form,
    inference_requested,
    noted,
    send_all,
    wait_for_effects,
)
from tests.peers.processes import wait_until

ROUTINE, URGENT = topology.INFERENCE_ROUTINE, topology.INFERENCE_URGENT
PATIENT_S = 30


class Reading:
    """A handler that takes long: until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = threading.Event()

    def __call__(self, envelope: Envelope) -> Effect:
        self.begun.append(str(envelope.id))
        assert self.go.wait(PATIENT_S)
        return noted(envelope)


def test_routine_ones_are_handled_side_by_side_and_an_urgent_one_beside_them(
    database: Database, consume: Consume
) -> None:
    routine, urgent = Reading(), Reading()
    urgent.go.set()
    consume({URGENT: urgent, ROUTINE: routine}, at_once=AtOnce(3, of_later_queues=2))
    send_all(database, *(inference_requested(Urgency.ROUTINE) for _ in range(4)))
    wait_until(lambda: len(routine.begun) == 2, timeout_s=PATIENT_S, what="two have begun")
    now = inference_requested(Urgency.URGENT)

    send_all(database, now)

    assert wait_for_effects(database, 1) == {str(now.id): 1}
    assert len(routine.begun) == 2
    routine.go.set()
    assert set(wait_for_effects(database, 5).values()) == {1}


def test_what_is_being_handled_is_finished_before_the_end(
    form: Form, database: Database, messaging: Messaging
) -> None:
    reading, stop = Reading(), threading.Event()
    consuming = threading.Thread(
        target=messaging.consume,
        args=({URGENT: reading, ROUTINE: reading}, stop),
        kwargs={"at_once": AtOnce(3, of_later_queues=2)},
    )
    consuming.start()
    send_all(database, *(inference_requested(Urgency.ROUTINE) for _ in range(2)))
    wait_until(lambda: len(reading.begun) == 2, timeout_s=PATIENT_S, what="both have begun")

    stop.set()
    reading.go.set()
    consuming.join(PATIENT_S)

    assert not consuming.is_alive()
    assert set(wait_for_effects(database, 2).values()) == {1}


def test_an_error_that_nobody_foresaw_ends_the_consumer(
    form: Form, database: Database, messaging: Messaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Consumer, "handle", fail)
    stop = threading.Event()
    send_all(database, inference_requested(Urgency.ROUTINE))

    with ThreadPoolExecutor(1) as thread:
        consuming = thread.submit(
            messaging.consume,
            {URGENT: noted, ROUTINE: noted},
            stop,
            at_once=AtOnce(3, of_later_queues=2),
        )
        try:
            with pytest.raises(ZeroDivisionError):
                consuming.result(PATIENT_S)
        finally:
            stop.set()


@pytest.mark.parametrize("form", ["sqlite"], indirect=True)
def test_one_that_ended_its_consumers_before_is_handled_alone(
    database: Database, consume: Consume
) -> None:
    sent = [inference_requested(Urgency.ROUTINE) for _ in range(6)]
    suspicious = str(sent[3].id)
    send_all(database, *sent)
    with database.transaction() as transaction:
        transaction.connection.execute(
            update(delivery).where(delivery.c.message_id == suspicious).values(claims=5)
        )
    at_work: set[str] = set()
    beside: set[str] = set()
    another = threading.Event()

    def handled(envelope: Envelope) -> Effect:
        at_work.add(str(envelope.id))
        if suspicious in at_work:
            beside.update(at_work)
            another.wait(0.2 if str(envelope.id) == suspicious else 0)
            beside.update(at_work)
        at_work.discard(str(envelope.id))
        return noted(envelope)

    consume({URGENT: handled, ROUTINE: handled}, at_once=AtOnce(4, of_later_queues=3))

    assert len(wait_for_effects(database, 6)) == 6
    assert beside == {suspicious}
