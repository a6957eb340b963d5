"""Writing an event and reading it back, and what is said of one that cannot be read."""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from message_contracts.catalogue import MESSAGES, UndecodableMessage, decode, encode
from message_contracts.coding import CodedConcept
from message_contracts.delivery import CommitmentRefusal, InstanceOutcome
from message_contracts.envelope import Envelope
from message_contracts.identifiers import case_id_of, derived_id, derived_uid
from message_contracts.inference import ClassProbability, InferenceRequested, ModelReference
from message_contracts.ingest import StudyOpened
from message_contracts.message import Message

SECRET = "Doe^Jane"

uids = st.text(string.digits + ".", min_size=1, max_size=64)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=64)
short_words = st.text(string.ascii_letters, min_size=1, max_size=16)
codes = st.builds(CodedConcept, value=short_words, scheme_designator=short_words, meaning=words)
probabilities = st.floats(0, 1)
moments = st.floats(0, 4e9).map(lambda second: datetime.fromtimestamp(second, UTC))
overrides: dict[str, st.SearchStrategy[Any]] = {
    "study_instance_uid": uids,
    "sop_instance_uid": uids,
    "device_uid": uids,
    "quarantined_instance_id": digests,
    "digest": digests.map(lambda digest: digest[:32]),
    "sha256": digests,
    "decided_by": short_words,
    "heatmap_sop_instance_uid": uids,
    "sop_instance_uids": st.lists(uids, min_size=1, max_size=4).map(tuple),
    "result_sop_instance_uids": st.lists(uids, min_size=1, max_size=4).map(tuple),
    "weights_sha256": digests,
    "uncertain_below": probabilities,
    "probabilities": st.lists(
        st.builds(ClassProbability, label=words, code=codes, probability=probabilities),
        min_size=2,
        max_size=6,
    ).map(tuple),
    "model": st.builds(ModelReference, name=words, version=words),
    "destination": short_words,
    "transaction_uid": uids,
    "committed": st.lists(uids, max_size=4).map(tuple),
    "refused": st.lists(
        st.builds(CommitmentRefusal, sop_instance_uid=uids, failure_reason=st.integers(0, 0xFFFF)),
        max_size=4,
    ).map(tuple),
}


st.register_type_strategy(
    InstanceOutcome,
    st.builds(InstanceOutcome, sop_instance_uid=uids, status=st.integers(0, 0xFFFF)),
)


def of_type(message: type[Message]) -> st.SearchStrategy[Message]:
    fields = {name: overrides[name] for name in message.model_fields if name in overrides}
    return st.builds(message, **fields)


messages = st.sampled_from(list(MESSAGES.values())).flatmap(of_type)
envelopes = st.builds(
    Envelope,
    id=st.uuids(),
    source=st.just("workflow_engine"),
    time=moments,
    body=messages,
    correlation_id=st.uuids(),
    causation_id=st.none() | st.uuids(),
    traceparent=st.none() | st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(envelopes)
def test_what_is_written_is_read_back_the_same(envelope: Envelope) -> None:
    assert decode(encode(envelope)) == envelope


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_are_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableMessage):
        decode(body)


def an_event(**changes: Any) -> dict[str, Any]:
    body = StudyOpened(study_instance_uid="1.2.3")
    envelope = Envelope.of(body, source="dicom_listener", time=datetime(2026, 1, 1, tzinfo=UTC))
    return {**json.loads(encode(envelope)), **changes}


@pytest.mark.parametrize(
    ("event", "at_fault"),
    [
        (b'{"' + SECRET.encode(), "not JSON"),
        ([SECRET], "specversion"),
        (an_event(specversion=SECRET), "specversion"),
        (an_event(type=SECRET), "type"),
        (an_event(type="org.countersign.study.opened.v99"), "type"),
        (an_event(id=SECRET), "id"),
        (an_event(time=SECRET), "time"),
        (an_event(correlationid=SECRET), "correlation_id"),
        (an_event(data=SECRET), "study.opened"),
        (an_event(data={"study_instance_uid": SECRET * 20}), "study_instance_uid"),
        (an_event(data={}), "study_instance_uid"),
    ],
)
def test_the_reason_names_what_is_at_fault_and_quotes_nothing(event: Any, at_fault: str) -> None:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()

    with pytest.raises(UndecodableMessage) as refused:
        decode(body)

    assert at_fault in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_message_belongs_to_the_journey_of_its_cause() -> None:
    first = decode(json.dumps(an_event()).encode())
    asked = InferenceRequested(
        case_id=case_id_of("1.2.3"),
        case_version=1,
        study_instance_uid="1.2.3",
        model=ModelReference(name="chest", version="1"),
        sop_instance_uids=("1.2.3.4",),
    )

    second = first.leads_to(asked, source="workflow_engine", time=first.time)

    assert second.correlation_id == first.correlation_id == first.id
    assert second.causation_id == first.id
    assert second.id != first.id


def test_a_handler_bound_to_the_wrong_queue_is_told_so() -> None:
    envelope = decode(json.dumps(an_event()).encode())

    assert envelope.data(StudyOpened).study_instance_uid == "1.2.3"
    with pytest.raises(TypeError, match=r"inference\.requested"):
        envelope.data(InferenceRequested)


def test_derived_ids_never_change() -> None:
    assert str(case_id_of("1.2.840.1")) == "008efa1f-085d-543f-949a-a5701b66bd6a"
    assert str(derived_id("study", "1.2", 2)) == "ef4ef455-68b7-5d72-8d4e-d3e2a0d8ca85"
    assert derived_uid("sc", "1.2") == "2.25.196773863677823878904392530960355448678"


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_derived_uids_are_uids(parts: list[str]) -> None:
    uid = derived_uid(*parts)

    assert len(uid) <= 64
    assert all(part == "0" or not part.startswith("0") for part in uid.split("."))


def test_parts_are_kept_apart() -> None:
    assert derived_id("ab", "c") != derived_id("a", "bc")
