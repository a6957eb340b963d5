"""Requestors of storage commitment, over real associations: pynetdicom and Orthanc."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from sqlalchemy import update

from dicom_listener.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from imaging_store.schema.administration import application_entity
from imaging_store.schema.ingest import commitment, committed_instance
from tests.integration.dicom_listener.commitment_peer import CommitmentPeer
from tests.integration.dicom_listener.listener import (
    Listener,
    Sendable,
    a_slice,
    send,
    sendable,
)
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.processes import LOOPBACK, free_port, wait_until
from tests.synthetic_images import part10

START = Callable[..., Listener]


@pytest.fixture
def listener(start_listener: START) -> Listener:
    return start_listener(commitment_days=365)


def list_ae(listener: Listener, ae_title: str, port: int | None = None) -> None:
    """List an AE that may ask for commitment, as an admin does."""
    listener.execute(
        application_entity.insert(),
        {
            "ae_title": ae_title,
            "networks": [],
            "urgency": "routine",
            "commitment": True,
            "host": None if port is None else LOOPBACK,
            "port": port,
            "changed_at": datetime.now(UTC),
            "changed_by": "test",
        },
    )


def ask(
    listener: Listener, sent: list[Sendable], ae_title: str = "CT1", *, waits: bool = False
) -> tuple[int, list[tuple[int, Dataset]]]:
    """Ask for commitment; return the status, and what was heard on the same association."""
    heard: list[tuple[int, Dataset]] = []
    answering: list[threading.Thread] = []
    told = threading.Event()

    def on_report(event: Any) -> tuple[int, None]:
        heard.append((event.event_type, event.event_information))
        answering.append(threading.current_thread())
        told.set()
        return 0x0000, None

    ae = AE(ae_title)
    ae.add_requested_context(STORAGE_COMMITMENT)
    association = ae.associate(
        LOOPBACK,
        listener.port,
        ae_title="COUNTERSIGN",
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)],
    )
    assert association.is_established
    assert association.accepted_contexts
    information = Dataset()
    information.TransactionUID = generate_uid()
    information.ReferencedSOPSequence = []
    for each in sent:
        item = Dataset()
        item.ReferencedSOPClassUID = each.sop_class_uid
        item.ReferencedSOPInstanceUID = each.sop_instance_uid
        information.ReferencedSOPSequence.append(item)
    status, _ = association.send_n_action(
        information, 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
    )
    if waits:
        assert told.wait(60)
        # pynetdicom answers in a thread of its own; after a request for release it must not.
        answering[0].join(60)
    association.release()
    return int(status.Status), heard


def test_a_peer_without_an_address_hears_of_it_on_the_same_association(listener: Listener) -> None:
    list_ae(listener, "CT1")
    sent = [sendable(a_slice()) for _ in range(3)]
    assert send(listener.port, sent[:2], "CT1") == [0, 0]

    status, [(event_type_id, told)] = ask(listener, sent, waits=True)

    assert (status, event_type_id) == (0x0000, 2)
    assert len(told.ReferencedSOPSequence) == 2
    [failed] = told.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (
        sent[2].sop_instance_uid,
        0x0112,
    )
    wait_until(lambda: listener.rows(commitment)[0].told_at, what="the acknowledgment")


def test_two_thousand_instances_are_committed_to_at_once(listener: Listener) -> None:
    list_ae(listener, "CT1")
    unknown = [
        Sendable(b"", "", "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}")
        for number in range(1, 2001)
    ]

    status, [(event_type_id, told)] = ask(listener, unknown, waits=True)

    assert (status, event_type_id) == (0x0000, 2)
    assert len(told.FailedSOPSequence) == 2000


def test_commitment_is_off_for_who_is_not_given_it(start_listener: START) -> None:
    listener = start_listener()
    list_ae(listener, "CT1")
    ae = AE("CT1")
    ae.add_requested_context(STORAGE_COMMITMENT)
    ae.add_requested_context("1.2.840.10008.1.1")

    association = ae.associate(LOOPBACK, listener.port, ae_title="COUNTERSIGN")

    assert [context.abstract_syntax for context in association.accepted_contexts] == [
        "1.2.840.10008.1.1"
    ]
    association.release()


def test_a_report_comes_after_a_kill_and_once_acknowledged_never_again(
    start_listener: START,
) -> None:
    listener = start_listener(commitment_days=365)
    port = free_port()
    list_ae(listener, "CT1", port)
    sent = [sendable(a_slice())]
    assert send(listener.port, sent, "CT1") == [0]

    assert ask(listener, sent) == (0x0000, [])
    listener.process.kill()
    [row] = listener.rows(commitment)
    assert row.told_at is None
    listener.execute(update(commitment).values(due_at=row.requested_at), {})

    with CommitmentPeer(port=port) as peer:
        listener.start()
        wait_until(lambda: listener.rows(commitment)[0].told_at, what="the acknowledgment")
        listener.process.kill()
        listener.start()
        other = [sendable(a_slice())]
        assert ask(listener, other) == (0x0000, [])
        wait_until(lambda: len(peer.heard) >= 2, what="the second report")

    first, second = (each for _, each in peer.heard)
    assert first.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == sent[0].sop_instance_uid
    assert second.FailedSOPSequence[0].ReferencedSOPInstanceUID == other[0].sop_instance_uid


def test_orthanc_asks_and_hears(listener: Listener, orthanc: Orthanc) -> None:
    list_ae(listener, orthanc.ae_title, orthanc.dicom_port)
    orthanc.add_modality("committing", Modality("COUNTERSIGN", listener.port))
    uid = generate_uid()
    for _ in range(3):
        orthanc.upload(a_file(a_slice(StudyInstanceUID=uid)))

    transaction_uid = orthanc.ask_for_commitment(uid, "committing")

    said = wait_until(lambda: heard(orthanc, transaction_uid), what="Orthanc's word")
    assert said["Status"] == "Success"
    assert len(said["Success"]) == 3
    assert said["RemoteAET"] == "COUNTERSIGN"
    assert all(row.kept_until for row in listener.rows(committed_instance))


def a_file(ds: Dataset) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return part10(ds)


def heard(orthanc: Orthanc, transaction_uid: str) -> dict[str, Any] | None:
    said = orthanc.commitment(transaction_uid)
    return None if said["Status"] == "Pending" else said
