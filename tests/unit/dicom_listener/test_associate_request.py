"""An A-ASSOCIATE-RQ that comes again is not decoded again, and says the same."""

import pytest
from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_listener import associate_request
from dicom_listener.associate_request import decode
from tests.peers.raw_scu import associate_rq

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"
PDU = associate_rq([(CT, EXPLICIT), (MR, JPEG)], "CT1")


def test_its_indication_says_what_pynetdicoms_says() -> None:
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(PDU)
    expected, indication = theirs.to_primitive(), decode(PDU).to_primitive()

    assert (indication.calling_ae_title, indication.called_ae_title) == (
        expected.calling_ae_title,
        expected.called_ae_title,
    )
    assert [
        (context.context_id, context.abstract_syntax, context.transfer_syntax)
        for context in indication.presentation_context_definition_list
    ] == [
        (context.context_id, context.abstract_syntax, context.transfer_syntax)
        for context in expected.presentation_context_definition_list
    ]


def test_what_is_decided_of_one_indication_is_not_found_in_the_next() -> None:
    request = decode(PDU)
    first = request.to_primitive()
    first.result, first.result_source, first.diagnostic = 0x01, 0x02, 0x02

    assert request.to_primitive().result is None


def test_the_same_bytes_are_the_same_request_unless_they_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = associate_rq([(CT, EXPLICIT), (MR, JPEG)], "CT2")

    assert decode(PDU) is decode(bytes(bytearray(PDU)))
    assert decode(PDU) is not decode(other)
    monkeypatch.setattr(associate_request, "_REMEMBERED_BYTES", len(other) - 1)
    assert decode(other) is not decode(other)
