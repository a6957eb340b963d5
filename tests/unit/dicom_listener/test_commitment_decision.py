"""What we commit to, and how the result is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_listener.commitment_decision import (
    FAILURES_EXIST,
    SUCCESSFUL,
    CommitmentRequest,
    FailureReason,
    Indexed,
    MalformedRequest,
    Reference,
    decide,
    event_of,
    request_of,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"
KEPT = Indexed(CT, is_purged=False)


def item(sop_class_uid: str | None, sop_instance_uid: str | None) -> Dataset:
    ds = Dataset()
    if sop_class_uid is not None:
        ds.ReferencedSOPClassUID = sop_class_uid
    if sop_instance_uid is not None:
        ds.ReferencedSOPInstanceUID = sop_instance_uid
    return ds


def information(transaction_uid: str | None, *items: Dataset) -> Dataset:
    ds = Dataset()
    if transaction_uid is not None:
        ds.TransactionUID = transaction_uid
    if items:
        ds.ReferencedSOPSequence = list(items)
    return ds


def reason(
    reference: Reference, found: Indexed | None, *, there: bool | None
) -> FailureReason | None:
    index = {} if found is None else {reference.sop_instance_uid: found}
    [decided] = decide([reference], index, {reference.sop_instance_uid: there})
    return decided.failure_reason


@pytest.mark.parametrize(
    ("sop_class_uid", "found", "there", "expected"),
    [
        (CT, KEPT, True, None),
        (CT, None, False, FailureReason.NO_SUCH_OBJECT_INSTANCE),
        (CT, Indexed(CT, is_purged=True), False, FailureReason.NO_SUCH_OBJECT_INSTANCE),
        # Marked, and its file not removed yet: it is as good as gone.
        (CT, Indexed(CT, is_purged=True), True, FailureReason.NO_SUCH_OBJECT_INSTANCE),
        (CT, KEPT, False, FailureReason.NO_SUCH_OBJECT_INSTANCE),
        (CT, KEPT, None, FailureReason.PROCESSING_FAILURE),
        (MR, KEPT, True, FailureReason.CLASS_INSTANCE_CONFLICT),
        (VERIFICATION, None, False, FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED),
        (VERIFICATION, KEPT, True, FailureReason.CLASS_INSTANCE_CONFLICT),
    ],
)
def test_only_what_is_there_is_committed_to(
    sop_class_uid: str,
    found: Indexed | None,
    there: bool | None,
    expected: FailureReason | None,
) -> None:
    assert reason(Reference(sop_class_uid, "1.2"), found, there=there) is expected


def test_all_committed_is_event_type_one() -> None:
    decided = decide(
        [Reference(CT, "1.1"), Reference(CT, "1.2")],
        {"1.1": KEPT, "1.2": KEPT},
        {"1.1": True, "1.2": True},
    )

    event_type_id, told = event_of("1.9", decided)

    assert event_type_id == SUCCESSFUL
    assert told.TransactionUID == "1.9"
    assert [each.ReferencedSOPInstanceUID for each in told.ReferencedSOPSequence] == ["1.1", "1.2"]
    assert "FailedSOPSequence" not in told


def test_some_refused_is_event_type_two_and_names_every_instance() -> None:
    decided = decide([Reference(CT, "1.1"), Reference(CT, "1.2")], {"1.1": KEPT}, {"1.1": True})

    event_type_id, told = event_of("1.9", decided)

    assert event_type_id == FAILURES_EXIST
    [kept], [failed] = told.ReferencedSOPSequence, told.FailedSOPSequence
    assert kept.ReferencedSOPInstanceUID == "1.1"
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == ("1.2", 0x0112)


def test_all_refused_names_no_instance_as_committed() -> None:
    _, told = event_of("1.9", decide([Reference(CT, "1.1")], {}, {}))

    assert "ReferencedSOPSequence" not in told


def test_a_request_is_read_with_each_instance_once() -> None:
    asked = request_of("CT1", information("1.9", item(CT, "1.1"), item(CT, "1.2"), item(CT, "1.1")))

    assert asked.transaction_uid == "1.9"
    assert [each.sop_instance_uid for each in asked.references] == ["1.1", "1.2"]


@pytest.mark.parametrize(
    ("malformed", "named"),
    [
        (information(None, item(CT, "1.1")), "TransactionUID"),
        (information("", item(CT, "1.1")), "TransactionUID"),
        (information("1.9"), "Referenced SOP Sequence"),
        (information("1.9", item(None, "1.1")), "ReferencedSOPClassUID"),
        (information("1.9", item(CT, None)), "ReferencedSOPInstanceUID"),
        (information("1.9", item(CT, "1.1"), item(MR, "1.1")), "two classes"),
    ],
)
def test_a_malformed_request_is_told_by_the_attribute_at_fault(
    malformed: Dataset, named: str
) -> None:
    with pytest.raises(MalformedRequest, match=named) as raised:
        request_of("CT1", malformed)

    assert len(str(raised.value)) <= 64


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_over_long_uid_is_malformed() -> None:
    with pytest.raises(MalformedRequest):
        request_of("CT1", information("1" * 65, item(CT, "1.1")))


def test_an_empty_sequence_is_malformed() -> None:
    ds = information("1.9")
    ds.ReferencedSOPSequence = []

    with pytest.raises(MalformedRequest):
        request_of("CT1", ds)


@given(st.permutations([Reference(CT, f"1.{number}") for number in range(4)]))
def test_the_same_request_has_the_same_id_in_any_order(references: list[Reference]) -> None:
    first = CommitmentRequest("CT1", "1.9", tuple(sorted(references, key=str)))

    assert CommitmentRequest("CT1", "1.9", tuple(references)).id == first.id
    assert CommitmentRequest("CT2", "1.9", tuple(references)).id != first.id
    assert CommitmentRequest("CT1", "1.8", tuple(references)).id != first.id
    assert CommitmentRequest("CT1", "1.9", tuple(references[1:])).id != first.id
