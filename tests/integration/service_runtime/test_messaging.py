"""What every form of messaging keeps to: SQLite, PostgreSQL, and PostgreSQL with RabbitMQ."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from message_contracts import catalogue, topology
from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceRequested, Urgency
from message_contracts.ingest import StudyOpened
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError, Postponed, TransientError
from service_runtime.messaging import backlog, dead_letters, outbox
from service_runtime.messaging.consumer import Effect, Handling
from service_runtime.messaging.forms import Messaging
from service_runtime.messaging.tables import RELAY_QUEUE, dead_letter, delivery, inbox, message
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.journeys import (
    FAST,
    Form,
    effects,
    inference_requested,
    noted,
    notes,
    numbered,
    send_all,
    study_opened,
    wait_for_effects,
)
from tests.peers.processes import wait_until

WORKFLOW = topology.WORKFLOW


def nothing_waits(database: Database) -> bool:
    return backlog.waiting(database) == {}


def wait_for_dead_letters(database: Database) -> list[dead_letters.DeadLetter]:
    return wait_until(lambda: dead_letters.list_open(database), what="a dead letter")


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


def test_the_urgent_lane_is_read_first(form: Form, database: Database, consume: Consume) -> None:
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


@pytest.mark.usefixtures("fast")
def test_a_transient_error_is_retried_with_growing_delay(
    database: Database, consume: Consume
) -> None:
    times: list[float] = []

    def handle(envelope: Envelope) -> Effect:
        times.append(time.monotonic())
        if len(times) < FAST.attempts:
            raise TransientError("the peer is away")
        return noted(envelope)

    consume({WORKFLOW: handle})
    send_all(database, study_opened())

    wait_for_effects(database, 1)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) == 3
    assert all(gap >= FAST.delay_s(place) for place, gap in enumerate(gaps, start=1))
    assert dead_letters.list_open(database) == []


def test_what_is_postponed_uses_up_no_attempt(database: Database, consume: Consume) -> None:
    once = topology.RetryPolicy(first_delay_s=0.1, multiplier=1, cap_s=0.1, attempts=1)
    times: list[float] = []

    def handle(envelope: Envelope) -> Effect:
        times.append(time.monotonic())
        if len(times) < 4:
            raise Postponed("a person has to decide", delay_s=0.05)
        return noted(envelope)

    consume({WORKFLOW: Handling(handle, retry=once)})
    send_all(database, study_opened())

    wait_for_effects(database, 1)
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(times))
    assert dead_letters.list_open(database) == []


def test_a_handling_may_have_a_retry_policy_of_its_own(
    database: Database, consume: Consume
) -> None:
    twice = topology.RetryPolicy(first_delay_s=0.01, multiplier=1, cap_s=0.01, attempts=2)

    def handle(_envelope: Envelope) -> Effect:
        raise TransientError("the peer is away")

    consume({WORKFLOW: Handling(handle, on_exhausted=noted, retry=twice)})
    send_all(database, study_opened())

    wait_for_effects(database, 1)
    [dead] = dead_letters.list_open(database)
    assert dead.attempts == 2


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


@pytest.mark.usefixtures("fast")
def test_attempts_used_up_make_a_dead_letter_and_its_effect_in_one_transaction(
    database: Database, consume: Consume
) -> None:
    envelope = study_opened()
    attempts: list[int] = []

    def handle(_envelope: Envelope) -> Effect:
        attempts.append(1)
        raise TransientError("the peer is away")

    consume({WORKFLOW: Handling(handle, on_exhausted=noted)})
    send_all(database, envelope)

    wait_for_effects(database, 1)
    [dead] = dead_letters.list_open(database)
    assert len(attempts) == FAST.attempts
    assert dead.attempts == FAST.attempts
    assert dead.queue == WORKFLOW
    assert dead.message_id == str(envelope.id)
    assert notes(database) == ["the peer is away"]
    wait_until(lambda: nothing_waits(database), what="no delivery is left")


def test_a_permanent_error_is_not_tried_again(database: Database, consume: Consume) -> None:
    attempts: list[int] = []

    def handle(_envelope: Envelope) -> Effect:
        attempts.append(1)
        raise PermanentError("model: not installed")

    consume({WORKFLOW: handle})
    send_all(database, study_opened())

    [dead] = wait_for_dead_letters(database)
    assert dead.reason == "model: not installed"
    assert attempts == [1]


@pytest.mark.usefixtures("fast")
def test_a_programming_error_is_retried_and_its_text_told_to_nobody(
    database: Database, consume: Consume
) -> None:
    attempts: list[int] = []

    def handle(_envelope: Envelope) -> Effect:
        attempts.append(1)
        raise KeyError("DOE^JANE")

    consume({WORKFLOW: handle})
    send_all(database, study_opened())

    [dead] = wait_for_dead_letters(database)
    assert len(attempts) == FAST.attempts
    assert dead.reason.startswith("KeyError at ")
    assert "DOE" not in dead.reason


@pytest.mark.usefixtures("fast")
def test_an_effect_that_fails_leaves_nothing_and_is_retried(
    database: Database, consume: Consume
) -> None:
    failures = [TransientError("the row is locked"), None]

    def handle(envelope: Envelope) -> Effect:
        def effect(transaction: Transaction) -> None:
            noted(envelope)(transaction)
            if failure := failures.pop(0):
                raise failure

        return effect

    envelope = study_opened()
    consume({WORKFLOW: handle})
    send_all(database, envelope)

    assert wait_for_effects(database, 1) == {str(envelope.id): 1}
    assert failures == []


def test_a_dead_letter_is_made_even_where_its_effect_fails(
    database: Database, consume: Consume
) -> None:
    def handle(_envelope: Envelope) -> Effect:
        raise PermanentError("refused")

    def on_exhausted(envelope: Envelope, _reason: str) -> Effect:
        def effect(transaction: Transaction) -> None:
            noted(envelope)(transaction)
            raise LookupError

        return effect

    consume({WORKFLOW: Handling(handle, on_exhausted)})
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
    def handle(_envelope: Envelope) -> Effect:
        raise PermanentError("refused")

    consume({WORKFLOW: handle})
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
    def handle(_envelope: Envelope) -> Effect:
        raise PermanentError("refused")

    consume({WORKFLOW: handle})
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
