"""What every form of messaging keeps to: SQLite, PostgreSQL, and PostgreSQL with RabbitMQ."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from message_contracts import catalogue, topology
from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceRequested, Urgency
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging import backlog, dead_letters, lanes, outbox
from service_runtime.messaging.consumer import Effect, Handling
from service_runtime.messaging.forms import Messaging
from service_runtime.messaging.tables import delivery, inbox, message
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.journeys import (
    WORKFLOW,
    Form,
    effects,
    inference_requested,
    make_due,
    noted,
    notes,
    nothing_waits,
    numbered,
    send_all,
    study_opened,
    wait_for_effects,
)
from tests.peers.processes import wait_until


def test_every_message_has_its_effect_once_and_no_delivery_is_left(
    database: Database, consume: Consume
) -> None:
    envelopes = list(numbered(50))
    consume({WORKFLOW: noted})

    send_all(database, *envelopes)

    assert wait_for_effects(database, 50) == {str(each.id): 1 for each in envelopes}
    wait_until(lambda: nothing_waits(database), what="no delivery is left")


def test_a_transaction_that_fails_sends_nothing(database: Database) -> None:
    def send_and_fail(transaction: Transaction) -> None:
        outbox.send(transaction, study_opened())
        raise LookupError

    with pytest.raises(LookupError), database.transaction() as transaction:
        send_and_fail(transaction)

    assert backlog.waiting(database) == {}


def test_what_a_handler_sends_arrives_with_the_same_correlation_and_trace(
    database: Database, consume: Consume
) -> None:
    first = study_opened()
    arrived: list[Envelope] = []

    def passed_on(envelope: Envelope) -> Effect:
        following = inference_requested(Urgency.ROUTINE)
        caused = envelope.leads_to(following.body, source="tests", time=following.time)
        return lambda transaction: outbox.send(transaction, caused)

    def kept(envelope: Envelope) -> Effect:
        arrived.append(envelope)
        return noted(envelope)

    consume({WORKFLOW: passed_on, topology.INFERENCE_ROUTINE: kept})
    send_all(database, first)

    wait_for_effects(database, 1)
    second = arrived[0]
    assert second.correlation_id == first.id
    assert second.causation_id == first.id
    with database.reading() as connection:
        bodies = connection.execute(select(message.c.body)).scalars().all()
    assert second.traceparent is not None
    trace_id = second.traceparent.split("-")[1]
    assert all(trace_id in bytes(body).decode() for body in bodies)


def test_the_same_message_id_sent_again_is_the_same_message(
    database: Database, consume: Consume
) -> None:
    envelope = study_opened()
    last = study_opened(2)
    consume({WORKFLOW: noted})

    send_all(database, envelope)
    send_all(database, envelope)
    wait_for_effects(database, 1)
    send_all(database, envelope, last)

    assert wait_for_effects(database, 2) == {str(envelope.id): 1, str(last.id): 1}


def test_a_message_delivered_twice_has_its_effect_once(
    database: Database, consume: Consume
) -> None:
    envelope = study_opened()
    handled: list[Envelope] = []

    def handle(envelope: Envelope) -> Effect:
        handled.append(envelope)
        return noted(envelope)

    consume({WORKFLOW: handle})
    send_all(database, envelope)
    wait_for_effects(database, 1)

    with database.transaction() as transaction:
        outbox.deliver(transaction, str(envelope.id), [WORKFLOW])

    wait_until(lambda: len(handled) == 2, what="handled again")
    wait_until(lambda: nothing_waits(database), what="no delivery is left")
    assert effects(database) == {str(envelope.id): 1}


def test_a_failing_repeat_of_a_handled_message_is_no_dead_letter(
    database: Database, consume: Consume
) -> None:
    envelope = study_opened()
    answers: list[Exception | None] = [None, PermanentError("it is done already")]

    def handle(envelope: Envelope) -> Effect:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return noted(envelope)

    consume({WORKFLOW: handle})
    send_all(database, envelope)
    wait_for_effects(database, 1)
    with database.transaction() as transaction:
        outbox.deliver(transaction, str(envelope.id), [WORKFLOW])
    wait_until(lambda: not answers, what="handled again")
    wait_until(lambda: nothing_waits(database), what="no delivery is left")

    assert dead_letters.list_open(database) == []


def test_the_urgent_lane_is_read_first(
    form: Form, database: Database, consume: Consume, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the broker takes for the next one.
    monkeypatch.setattr(lanes, "_NEXT_OF_LANE_S", 2)
    routine = [inference_requested(Urgency.ROUTINE) for _ in range(6)]
    urgent = [inference_requested(Urgency.URGENT) for _ in range(6)]
    send_all(database, *routine, *urgent)
    if form.via_broker:
        wait_until(lambda: nothing_waits(database), what="all are published")

    def handle(envelope: Envelope) -> Effect:
        return noted(envelope, envelope.data(InferenceRequested).urgency)

    consume({topology.INFERENCE_URGENT: handle, topology.INFERENCE_ROUTINE: handle}, prefetch=1)

    wait_for_effects(database, 12)
    # The broker gives the first message of either lane before the second of any.
    assert sum(note == "urgent" for note in notes(database)[:7]) == 6


def test_a_branch_is_consumed_by_itself_and_only_while_its_gate_is_open(
    database: Database, messaging: Messaging
) -> None:
    envelope = study_opened()
    branch = topology.branch_of(WORKFLOW, "slow")
    stop, asked, is_open = threading.Event(), threading.Event(), threading.Event()

    def gate() -> float:
        asked.set()
        return 0 if is_open.is_set() else 0.05

    once = topology.RetryPolicy(first_delay_s=0.1, multiplier=1, cap_s=0.1, attempts=1)
    consuming = threading.Thread(
        target=messaging.consume_branch,
        args=(branch, Handling(noted, retry=once), stop),
        kwargs={"gate": gate, "handler_deadline_s": 60},
    )
    consuming.start()
    try:
        with database.transaction() as transaction:
            message_id, routing_key = str(envelope.id), envelope.body.routing_key
            outbox.keep(transaction, message_id, routing_key, catalogue.encode(envelope))
            outbox.deliver(transaction, message_id, [branch])
        assert asked.wait(60)
        assert backlog.waiting(database) == {branch: 1}
        is_open.set()
        wait_for_effects(database, 1)
        assert backlog.waiting(database) == {}
    finally:
        stop.set()
        consuming.join()


def test_a_message_to_which_no_queue_is_bound_is_refused_where_it_is_sent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(topology.QUEUES, WORKFLOW)

    with pytest.raises(outbox.UnboundMessage), database.transaction() as transaction:
        outbox.send(transaction, study_opened())


def test_a_lease_that_ran_out_counts_for_nothing(form: Form, database: Database) -> None:
    if form.via_broker:
        pytest.skip("the broker holds what is consumed; rows have no lease")
    send_all(database, study_opened())
    make_due(database)
    with database.transaction() as transaction:
        [late] = outbox.claim(transaction, WORKFLOW, 1, "1-1/late", -1)
    with database.transaction() as transaction:
        [early] = outbox.claim(transaction, WORKFLOW, 1, "2-2/early", 30)

    with pytest.raises(outbox.LeaseLost), database.transaction() as transaction:  # noqa: PT012
        outbox.first_time(transaction, WORKFLOW, late.message_id)
        outbox.settle(transaction, late)

    assert early.claims == 2
    with database.reading() as connection:
        assert connection.execute(select(inbox)).all() == []


def test_the_leases_of_a_dead_process_are_released_and_no_others(
    form: Form, database: Database
) -> None:
    if form.via_broker:
        pytest.skip("the broker holds what is consumed; rows have no lease")
    send_all(database, study_opened(1), study_opened(2))
    make_due(database)
    with database.transaction() as transaction:
        outbox.claim(transaction, WORKFLOW, 1, "12-345/a", 30)
        outbox.claim(transaction, WORKFLOW, 1, "12-3456/b", 30)

    with database.transaction() as transaction:
        released = outbox.release_leases_of(transaction, "12-345")

    assert released == 1
    with database.reading() as connection:
        tokens = connection.execute(select(delivery.c.lease_token)).scalars().all()
    assert sorted(tokens) == ["", "12-3456/b"]


def test_an_insert_that_is_wrong_is_not_called_transient(database: Database) -> None:
    with pytest.raises(IntegrityError), database.transaction() as transaction:
        transaction.connection.execute(insert(inbox), {"queue": "q", "message_id": None})
