"""Results go to a PACS: Orthanc, DCMTK's storescp, and peers that refuse in every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import (
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from dicom_sender.association import PacsUnavailable
from dicom_sender.handlers import AttachmentRefused, Sender, TryAgain
from dicom_sender.permission import NotNow
from dicom_sender.store_outcome import PENDING
from inference_worker.result_attributes import ResultObject
from message_contracts.case import CaseStatus
from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
    AttachmentRequested,
)
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from tests.integration.dicom_sender.a_pacs import a_pacs, answers, recorded
from tests.integration.dicom_sender.kept_case import (
    change_case,
)
from tests.peers.orthanc import Orthanc
from tests.peers.processes import (
    ServerProcess,
    accepts_connections,
    find_program,
    free_port,
    require,
)


def test_orthanc_holds_what_was_sent(
    orthanc: Orthanc,
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    study_instance_uid: str,
    results: list[ResultObject],
) -> None:
    sender = sender_to(orthanc.dicom_port, orthanc.ae_title)

    effect = sender(request_of)

    [answer] = answers(database, effect)
    assert isinstance(answer, AttachmentDelivered)
    assert {each.sop_instance_uid: each.status for each in answer.outcomes} == {
        result.sop_instance_uid: 0 for result in results
    }
    assert orthanc.count_instances(study_instance_uid, "OT") == 1
    assert orthanc.count_instances(study_instance_uid, "SR") == 1
    [report] = orthanc.instances(study_instance_uid, "SR")
    kept = pydicom.dcmread(pydicom.filebase.DicomBytesIO(orthanc.download(report)))
    assert str(kept.PatientName) == "Müller^Jörg"


def test_storescp_of_dcmtk_takes_them(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database, tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    program = require(find_program("storescp"), "storescp", "dcmtk")
    server = ServerProcess(
        [program, "--output-directory", str(folder), str(port)],
        log=tmp_path / "storescp.log",
        environment={"TCP_NODELAY": "1"},
    )
    server.start()
    try:
        server.wait_until_ready(lambda: accepts_connections(port))
        effect = sender_to(port, "STORESCP")(request_of)
    finally:
        server.stop()

    assert isinstance(answers(database, effect)[0], AttachmentDelivered)
    assert len(list(folder.iterdir())) == 2


def test_a_pacs_that_takes_implicit_vr_only_gets_implicit_vr(
    sender_to: Callable[..., Sender], request_of: Envelope
) -> None:
    received = []

    def keep(event: Any) -> int:
        received.append((event.context.transfer_syntax, event.dataset.SeriesDescription))
        return 0

    with a_pacs(keep) as port:
        sender_to(port)(request_of)

    assert [syntax for syntax, _ in received] == [ImplicitVRLittleEndian] * 2
    assert all(words.startswith("AI - not for primary diagnosis") for _, words in received)


def test_what_was_taken_is_not_sent_again(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    received: list[str] = []
    status = {results[0].sop_instance_uid: 0x0000, results[1].sop_instance_uid: 0xA700}

    def answer(event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        received.append(uid)
        return status[uid]

    with a_pacs(answer) as port:
        sender = sender_to(port)
        with pytest.raises(TryAgain, match="1 of 2 instances: 0xA700"):
            sender(request_of)
        status[results[1].sop_instance_uid] = 0xB000
        effect = sender(request_of)
        sender(request_of)

    assert received == [
        results[0].sop_instance_uid,
        results[1].sop_instance_uid,
        results[1].sop_instance_uid,
    ]
    [delivered] = answers(database, effect)
    assert [each.status for each in delivered.outcomes] == [0x0000, 0xB000]


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0124])
def test_a_refusal_for_good_is_not_tried_again_and_the_rest_is_sent(
    status: int,
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    refused = results[0].sop_instance_uid

    def answer(event: Any) -> int:
        return status if event.request.AffectedSOPInstanceUID == refused else 0

    with (
        a_pacs(answer) as port,
        pytest.raises(AttachmentRefused, match=f"archive did not take 1 of 2.*0x{status:04X}"),
    ):
        sender_to(port)(request_of)

    assert recorded(database) == {refused: status, results[1].sop_instance_uid: 0}


def test_a_sop_class_that_is_not_accepted_is_refused(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    with (
        a_pacs(lambda _event: 0, sop_classes=[SecondaryCaptureImageStorage]) as port,
        pytest.raises(AttachmentRefused, match="0x0122"),
    ):
        sender_to(port)(request_of)

    assert sorted(recorded(database).values()) == [0, 0x0122]


def test_a_peer_that_accepts_nothing_refuses_everything(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    with (
        a_pacs(lambda _event: 0, sop_classes=["1.2.840.10008.1.1"]) as port,
        pytest.raises(AttachmentRefused, match="2 of 2 instances: 0x0122"),
    ):
        sender_to(port)(request_of)

    assert list(recorded(database).values()) == [0x0122] * 2


def test_nobody_there_is_tried_again(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    with pytest.raises(PacsUnavailable, match="nobody answers for archive"):
        sender_to(free_port())(request_of)

    assert recorded(database) == {}


def test_a_rejected_association_is_tried_again(
    sender_to: Callable[..., Sender], request_of: Envelope
) -> None:
    with (
        a_pacs(lambda _event: 0, require_called_ae_title=True) as port,
        pytest.raises(PacsUnavailable, match="archive rejected the association"),
    ):
        sender_to(port, "ELSE")(request_of)


def test_an_aborted_association_is_tried_again_with_the_rest(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    taken: list[str] = []

    def take_one_then_abort(event: Any) -> int:
        if taken:
            event.assoc.abort()
        taken.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    with (
        a_pacs(take_one_then_abort) as port,
        pytest.raises(PacsUnavailable, match="without an answer"),
    ):
        sender_to(port)(request_of)

    # Whether it has the second is open.
    assert recorded(database) == {
        results[0].sop_instance_uid: 0,
        results[1].sop_instance_uid: PENDING,
    }


def test_an_unknown_destination_is_refused_with_the_setting_to_look_at(
    sender_to: Callable[..., Sender], request_of: Envelope
) -> None:
    sender = sender_to(free_port())
    nowhere = replace(sender, destinations={})

    with pytest.raises(AttachmentRefused, match="COUNTERSIGN_PACS_DESTINATIONS"):
        nowhere(request_of)


def test_nothing_is_sent_while_the_case_is_on_hold(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    with a_pacs(lambda _event: 0) as port:
        sender = sender_to(port)
        change_case(database, on_hold=True)
        with pytest.raises(NotNow, match="on hold"):
            sender(request_of)

    assert recorded(database) == {}


def test_what_the_pacs_has_taken_is_told_though_the_case_went_on_hold(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    with a_pacs(lambda _event: 0) as port:
        sender = sender_to(port)
        sender(request_of)
        change_case(database, on_hold=True)
        effect = sender(request_of)

    assert isinstance(answers(database, effect)[0], AttachmentDelivered)


def test_what_was_rejected_since_stays_here_and_the_case_hears_of_it(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    with a_pacs(lambda _event: 0) as port:
        sender = sender_to(port)
        change_case(database, status=CaseStatus.REJECTED, report_version=None)
        effect = sender(request_of)

    [answer] = answers(database, effect)
    assert isinstance(answer, AttachmentFailed)
    assert answer.reason.startswith("the case version was rejected")
    assert recorded(database) == {}


def test_an_instance_that_is_not_kept_is_refused(
    sender_to: Callable[..., Sender], request_of: Envelope
) -> None:
    body = request_of.data(AttachmentRequested)
    unknown = body.model_copy(update={"sop_instance_uids": ("2.25.404",)})

    with pytest.raises(AttachmentRefused, match=r"1 of 1 instances are not in the store"):
        sender_to(free_port())(request_of.model_copy(update={"body": unknown}))


def test_when_tries_are_used_up_the_case_hears_what_was_taken(
    sender_to: Callable[..., Sender],
    request_of: Envelope,
    database: Database,
    results: list[ResultObject],
) -> None:
    def answer(event: Any) -> int:
        first = results[0].sop_instance_uid
        return 0 if event.request.AffectedSOPInstanceUID == first else 0xC001

    with a_pacs(answer) as port:
        sender = sender_to(port)
        with pytest.raises(AttachmentRefused) as refusal:
            sender(request_of)

    [failed] = answers(database, sender.on_exhausted(request_of, str(refusal.value)))

    assert isinstance(failed, AttachmentFailed)
    assert [each.status for each in failed.outcomes] == [0, 0xC001]
    assert "0xC001" in failed.reason
