"""What is tried again, how often and how late, in every form of messaging."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from message_contracts import topology
from message_contracts.envelope import Envelope
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError, Postponed, TransientError
from service_runtime.messaging import dead_letters
from service_runtime.messaging.consumer import Effect, Handling
from tests.integration.service_runtime.conftest import Consume
from tests.integration.service_runtime.journeys import (
    FAST,
    WORKFLOW,
    noted,
    notes,
    nothing_waits,
    send_all,
    study_opened,
    wait_for_dead_letters,
    wait_for_effects,
)
from tests.peers.processes import wait_until


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
