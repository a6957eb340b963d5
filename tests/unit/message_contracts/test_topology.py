"""Every message reaches somebody, and every failure has a policy."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign import message_docs
from message_contracts.catalogue import MESSAGES
from message_contracts.identifiers import case_id_of
from message_contracts.inference import InferenceRequested, ModelReference, Urgency
from message_contracts.message import Message
from message_contracts.topology import (
    INFERENCE_ROUTINE,
    INFERENCE_URGENT,
    QUEUES,
    Queue,
    RetryPolicy,
    queues_for,
)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: message.TYPE)
def test_every_message_is_bound_to_a_queue(message: type[Message]) -> None:
    assert message_docs.queues_of(message)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: message.TYPE)
def test_every_message_has_a_known_sender(message: type[Message]) -> None:
    assert message_docs.sender_of(message)


@pytest.mark.parametrize("queue", QUEUES.values(), ids=lambda queue: queue.name)
def test_every_queue_has_a_consumer_and_a_policy(queue: Queue) -> None:
    assert message_docs.CONSUMERS[queue.name]
    assert queue.retry.attempts >= 1
    assert 0 < queue.retry.first_delay_s <= queue.retry.cap_s


def test_no_routing_key_is_bound_that_nothing_is_sent_with() -> None:
    sent = {message.TYPE for message in MESSAGES.values()} - {InferenceRequested.TYPE}
    lanes = {f"{InferenceRequested.TYPE}.{urgency}" for urgency in Urgency}

    bound = {key for queue in QUEUES.values() for key in queue.routing_keys}

    assert bound == sent | lanes


@pytest.mark.parametrize(
    ("urgency", "queue"),
    [(Urgency.URGENT, INFERENCE_URGENT), (Urgency.ROUTINE, INFERENCE_ROUTINE)],
)
def test_an_urgent_request_takes_the_urgent_lane(urgency: Urgency, queue: str) -> None:
    request = InferenceRequested(
        case_id=case_id_of("1.2"),
        case_version=1,
        study_instance_uid="1.2",
        model=ModelReference(name="chest", version="1"),
        sop_instance_uids=("1.2.3",),
        urgency=urgency,
    )

    assert queues_for(request) == (queue,)


policies = st.builds(
    RetryPolicy,
    first_delay_s=st.floats(0.01, 10),
    multiplier=st.floats(1, 10),
    cap_s=st.floats(10, 1e6),
    attempts=st.integers(1, 1000),
)


@given(policies)
def test_delays_grow_up_to_the_cap(policy: RetryPolicy) -> None:
    delays = [policy.delay_s(attempt) for attempt in range(1, 200)]

    assert delays[0] == policy.first_delay_s
    assert all(earlier <= later for earlier, later in pairwise(delays))
    assert max(delays) <= policy.cap_s
