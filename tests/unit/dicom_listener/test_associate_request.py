"""An A-ASSOCIATE-RQ that comes again is not decoded again, and says the same."""

import pytest
from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_listener import associate_request
from dicom_listener.associate_request import decode, remember
from tests.peers.raw_scu import associate_rq, item

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


@pytest.fixture
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associate_request, "_remembered", {})


@pytest.mark.usefixtures("nothing_remembered")
def test_who_has_been_let_in_is_known_when_it_asks_the_same_again() -> None:
    request, other = decode(PDU), decode(associate_rq([(CT, EXPLICIT), (MR, JPEG)], "CT2"))
    remember(request)

    assert decode(bytes(bytearray(PDU))) is request
    assert decode(other.pdu) is not other


@pytest.mark.usefixtures("nothing_remembered")
def test_a_long_request_and_one_that_others_have_followed_are_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(associate_request, "_REMEMBERED_BYTES", len(PDU))
    requests = [decode(associate_rq([(CT, EXPLICIT)], f"CT{number}")) for number in range(33)]
    long = decode(associate_rq([(CT, EXPLICIT)] * 3, "CT1"))
    for request in (*requests, long):
        remember(request)

    known = [decode(request.pdu) is request for request in (*requests, long)]

    assert known == [False, *[True] * 32, False]


@pytest.mark.usefixtures("nothing_remembered")
def test_a_presentation_context_with_an_even_id_is_refused_before_anybody_asks() -> None:
    context = item(0x30, CT.encode()) + item(0x40, EXPLICIT.encode())
    at = PDU.index(context) - 4
    malformed = PDU[:at] + b"\2" + PDU[at + 1 :]

    with pytest.raises(ValueError, match="odd"):
        decode(malformed)
