"""A rejection note follows what a PACS has taken and is not to use."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import evt
from sqlalchemy import select, update

from dicom_sender.association import PacsUnavailable
from dicom_sender.handlers import AttachmentRefused, Sender, TryAgain
from dicom_sender.rejection_note import DEVICE_UID, KEY_OBJECT_SELECTION_DOCUMENT
from imaging_store.instances import FileInstanceStore
from imaging_store.schema.delivery import rejection_note
from imaging_store.schema.workflow import cases
from inference_worker.result_attributes import ResultObject
from message_contracts.case import CaseStatus
from message_contracts.delivery import (
    AttachmentFailed,
    AttachmentRequested,
    RejectionDelivered,
    RejectionFailed,
    RejectionRequested,
)
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from tests.integration.dicom_sender.a_pacs import a_pacs, answers, recorded
from tests.integration.dicom_sender.kept_case import NOON, change_case, keep_delivery
from tests.peers.orthanc import Orthanc
from tests.peers.processes import find_program, require


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def rejection_of(request_of: Envelope) -> Envelope:
    asked = request_of.data(AttachmentRequested)
    return Envelope.of(
        RejectionRequested(**asked.model_dump()),
        source="workflow_engine",
        time=NOON + timedelta(hours=1),
    )


def errors_of(file: Path) -> list[str]:
    program = require(find_program("dciodvfy"), "dciodvfy", "dicom3tools")
    output = subprocess.run([program, file], capture_output=True, text=True, check=False)
    lines = (output.stdout + output.stderr).splitlines()
    assert "KeyObjectSelectionDocument" in lines
    return [line for line in lines if line.startswith("Error")]


def kept_note(database: Database, store: FileInstanceStore) -> tuple[str, bytes]:
    with database.reading() as connection:
        row = connection.execute(select(rejection_note)).one()
    return row.sop_instance_uid, store.read(row.key)


def rejection_answer(database: Database, effect: Callable[[Any], None]) -> RejectionDelivered:
    [answer] = [each for each in answers(database, effect) if isinstance(each, RejectionDelivered)]
    return answer


def test_orthanc_gets_a_valid_note_about_what_it_has(  # noqa: PLR0917 - fixtures
    orthanc: Orthanc,
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    rejection_of: Envelope,
    database: Database,
    study_instance_uid: str,
    results: list[ResultObject],
    tmp_path: Path,
) -> None:
    sender = sender_to(orthanc.dicom_port, orthanc.ae_title)
    sender(request_of)

    answer = rejection_answer(database, sender(rejection_of))

    assert answer.sop_instance_uids == tuple(each.sop_instance_uid for each in results)
    [instance] = orthanc.instances(study_instance_uid, "KO")
    file = tmp_path / "note.dcm"
    file.write_bytes(orthanc.download(instance))
    note = pydicom.dcmread(file)
    title = note.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    assert note.StudyInstanceUID == study_instance_uid
    assert str(note.PatientName) == "Müller^Jörg"
    assert note.PatientID == "SENDER-1"
    assert note.ContributingEquipmentSequence[0].DeviceUID == DEVICE_UID
    rejected = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: item.ValueType
        for item in note.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    assert rejected == {
        results[0].sop_instance_uid: "IMAGE",
        results[1].sop_instance_uid: "COMPOSITE",
    }
    assert errors_of(file) == []


def test_where_nothing_was_taken_no_note_is_sent(
    sender_to: Callable[..., Sender], rejection_of: Envelope, database: Database
) -> None:
    sent: list[str] = []
    with a_pacs(lambda event: sent.append(event.request.AffectedSOPInstanceUID) or 0) as port:
        answer = rejection_answer(database, sender_to(port)(rejection_of))

    assert answer.sop_instance_uids == ()
    assert sent == []


def test_only_what_was_or_may_have_been_taken_is_rejected(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    rejection_of: Envelope,
    database: Database,
    store: FileInstanceStore,
    results: list[ResultObject],
) -> None:
    refused = results[1].sop_instance_uid

    def refuse_one(event: Any) -> int:
        return 0xA900 if event.request.AffectedSOPInstanceUID == refused else 0

    with a_pacs(refuse_one, also=[KEY_OBJECT_SELECTION_DOCUMENT]) as port:
        sender = sender_to(port)
        with pytest.raises(AttachmentRefused):
            sender(request_of)
        answer = rejection_answer(database, sender(rejection_of))

    assert answer.sop_instance_uids == (results[0].sop_instance_uid,)
    note = pydicom.dcmread(BytesIO(kept_note(database, store)[1]))
    [series] = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == results[0].series_instance_uid


def test_an_answer_that_was_lost_counts_as_perhaps_taken(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    rejection_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    with a_pacs(lambda event: event.assoc.abort() or 0) as port:
        sender = sender_to(port)
        with pytest.raises(PacsUnavailable):
            sender(request_of)
    with a_pacs(lambda _event: 0, also=[KEY_OBJECT_SELECTION_DOCUMENT]) as port:
        answer = rejection_answer(database, sender_to_again(sender, port)(rejection_of))

    assert answer.sop_instance_uids == (results[0].sop_instance_uid,)


def test_a_refusal_does_not_undo_that_an_earlier_answer_was_lost(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    rejection_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    with a_pacs(lambda event: event.assoc.abort() or 0) as port:
        sender = sender_to(port)
        with pytest.raises(PacsUnavailable):
            sender(request_of)
    with a_pacs(lambda _event: 0xA700) as port, pytest.raises(TryAgain):
        sender_to_again(sender, port)(request_of)
    with a_pacs(lambda _event: 0, also=[KEY_OBJECT_SELECTION_DOCUMENT]) as port:
        answer = rejection_answer(database, sender_to_again(sender, port)(rejection_of))

    assert answer.sop_instance_uids == (results[0].sop_instance_uid,)


def test_what_is_decided_as_an_instance_is_about_to_go_is_heard_first(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    associated, sent = threading.Event(), []

    def take(event: Any) -> int:
        sent.append(event.request.AffectedSOPInstanceUID)
        return 0

    with (
        a_pacs(take, handlers=[(evt.EVT_ACCEPTED, lambda _event: associated.set())]) as port,
        ThreadPoolExecutor() as pool,
    ):
        with database.transaction() as transaction:
            transaction.connection.execute(
                update(cases).values(status=CaseStatus.REJECTED, report_version=None)
            )
            sending = pool.submit(sender_to(port), request_of)
            assert associated.wait(60)
            # It asks as soon as it is associated.
            assert wait([sending], timeout=0.5).not_done
        effect = sending.result(60)

    assert sent == []
    assert recorded(database) == {}
    [failed] = [each for each in answers(database, effect) if isinstance(each, AttachmentFailed)]
    assert "rejected" in failed.reason


def sender_to_again(sender: Sender, port: int) -> Sender:
    archive = sender.destinations["archive"].model_copy(update={"port": port})
    return replace(sender, destinations={"archive": archive})


def test_a_note_is_the_same_bytes_when_it_is_sent_again_and_never_sent_twice(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    rejection_of: Envelope,
    database: Database,
    store: FileInstanceStore,
) -> None:
    received: list[bytes] = []
    status = {"now": 0}

    def take(event: Any) -> int:
        if event.request.AffectedSOPClassUID == KEY_OBJECT_SELECTION_DOCUMENT:
            received.append(event.request.DataSet.getvalue())
            return status["now"]
        return 0

    with a_pacs(
        take,
        also=[KEY_OBJECT_SELECTION_DOCUMENT],
        transfer_syntaxes=["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"],
    ) as port:
        sender = sender_to(port)
        sender(request_of)
        status["now"] = 0xA700
        with pytest.raises(Exception, match="0xA700"):
            sender(rejection_of)
        status["now"] = 0
        sender(rejection_of)
        sender(rejection_of)

    uid, content = kept_note(database, store)
    assert len(received) == 2
    assert received[0] == received[1]
    assert content.endswith(received[0])
    assert recorded(database)[uid] == 0


def test_a_note_goes_although_the_case_is_on_hold_or_rejected(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    rejection_of: Envelope,
    database: Database,
) -> None:
    with a_pacs(lambda _event: 0, also=[KEY_OBJECT_SELECTION_DOCUMENT]) as port:
        sender = sender_to(port)
        sender(request_of)
        change_case(database, on_hold=True)
        answer = rejection_answer(database, sender(rejection_of))

    assert len(answer.sop_instance_uids) == 2


@pytest.mark.parametrize("is_lost", [False, True])
def test_no_note_goes_once_the_doctor_agrees_unless_it_may_have_gone(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    rejection_of: Envelope,
    database: Database,
    *,
    is_lost: bool,
) -> None:
    notes: list[str] = []

    def take(event: Any) -> int:
        if event.request.AffectedSOPClassUID == KEY_OBJECT_SELECTION_DOCUMENT:
            notes.append(event.request.AffectedSOPInstanceUID)
            if is_lost and len(notes) == 1:
                event.assoc.abort()
        return 0

    with a_pacs(take, also=[KEY_OBJECT_SELECTION_DOCUMENT]) as port:
        sender = sender_to(port)
        sender(request_of)
        keep_delivery(database, rejected_at=NOON)
        if is_lost:
            with pytest.raises(PacsUnavailable):
                sender(rejection_of)
        keep_delivery(database)
        answer = rejection_answer(database, sender(rejection_of))

    assert len(notes) == (2 if is_lost else 0)
    assert len(answer.sop_instance_uids) == (2 if is_lost else 0)


def test_a_pacs_that_takes_no_notes_is_told_about(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    rejection_of: Envelope,
    database: Database,
) -> None:
    with a_pacs(lambda _event: 0) as port:
        sender = sender_to(port)
        sender(request_of)
        with pytest.raises(AttachmentRefused, match="1 of 1 instances: 0x0122") as refusal:
            sender(rejection_of)

    failed = rejection_answer(database, sender.on_exhausted(rejection_of, str(refusal.value)))
    assert isinstance(failed, RejectionFailed)
    assert len(failed.sop_instance_uids) == 2
