import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from dicom_listener.c_store import (
    InvalidCommand,
    StoreRequest,
    command_elements,
    command_field,
    decode_request,
    encode_response,
)
from dicom_listener.store_status import StoreAnswer, StoreStatus

uids = st.from_regex(r"[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){1,5}", fullmatch=True)
message_ids = st.integers(0, 0xFFFF)
comments = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x5B), min_size=1, max_size=64)
failures = st.sampled_from([status for status in StoreStatus if status])
answers = st.one_of(
    st.just(StoreAnswer(StoreStatus.SUCCESS)), st.builds(StoreAnswer, failures, comments)
)


def theirs(message: C_STORE_RQ | C_STORE_RSP) -> bytes:
    encoded = encode(message.command_set, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return encoded


@given(message_id=message_ids, sop_class=uids, instance=uids, priority=st.sampled_from([0, 1, 2]))
def test_a_request_that_pynetdicom_encodes_is_decoded(
    message_id: int, sop_class: str, instance: str, priority: int
) -> None:
    primitive = C_STORE()
    primitive.MessageID = message_id
    primitive.AffectedSOPClassUID = UID(sop_class)
    primitive.AffectedSOPInstanceUID = UID(instance)
    primitive.Priority = priority
    primitive.DataSet = BytesIO(b"data")
    primitive.MoveOriginatorApplicationEntityTitle = "ORIGINATOR"
    primitive.MoveOriginatorMessageID = 7
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)

    elements = command_elements(theirs(message))

    assert command_field(elements) == 0x0001
    assert decode_request(elements) == StoreRequest(
        message_id, sop_class, instance, True, is_urgent=priority == 1
    )


@given(message_id=message_ids, sop_class=uids, instance=uids, answer=answers)
def test_a_response_is_what_pynetdicom_would_encode(
    message_id: int, sop_class: str, instance: str, answer: StoreAnswer
) -> None:
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo = message_id
    primitive.AffectedSOPClassUID = UID(sop_class)
    primitive.AffectedSOPInstanceUID = UID(instance)
    primitive.Status = int(answer.status)
    if answer.comment:
        primitive.ErrorComment = answer.comment
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)

    response = encode_response(StoreRequest(message_id, sop_class, instance, True), answer)

    assert response == theirs(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        elements = command_elements(data)
        command_field(elements)
        decode_request(elements)
    except InvalidCommand:
        return


def test_a_request_without_an_instance_uid_is_refused() -> None:
    command = struct.pack("<HHLH", 0, 0x0110, 2, 1) + struct.pack("<HHLH", 0, 0x0800, 2, 0)

    with pytest.raises(InvalidCommand, match="0000,0002"):
        decode_request(command_elements(command))
