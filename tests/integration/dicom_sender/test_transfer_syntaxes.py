"""In which encoding instances go: as stored, byte for byte, or transcoded without loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import evt
from pynetdicom.dsutils import decode as decode_data_set
from pynetdicom.pdu import P_DATA_TF
from sqlalchemy import select

from dicom_sender.association import PacsUnavailable
from dicom_sender.caller import Caller
from dicom_sender.handlers import AttachmentRefused, Sender
from dicom_sender.part10 import read_header
from imaging_pixels.decode import decode
from imaging_store.instances import FileInstanceStore
from imaging_store.schema.delivery import attachment
from imaging_store.schema.results import result_object
from message_contracts.delivery import AttachmentRequested
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from tests.integration.dicom_sender.a_pacs import a_pacs
from tests.integration.dicom_sender.kept_case import CASE, NOON
from tests.peak_memory import peak_bytes, peak_bytes_from_now

LONG_S = 60
PRIVATE = "1.2.826.0.1.3680043.2.1143.107.104.103.115.2.8.4"
Keep = Callable[[bytes], Envelope]


@pytest.fixture
def keep(
    database: Database, store: FileInstanceStore, request_of: Envelope, study_instance_uid: str
) -> Keep:
    """Keep a file as if it were a result; return the request to send it."""

    def keep_file(content: bytes) -> Envelope:
        header = read_header(BytesIO(content), "results/other.dcm")
        uid = header.sop_instance_uid
        store.put_artifact("results/other.dcm", content)
        with database.transaction() as transaction:
            transaction.connection.execute(
                result_object.insert(),
                {
                    "sop_instance_uid": uid,
                    "sop_class_uid": header.sop_class_uid,
                    "study_instance_uid": study_instance_uid,
                    "series_instance_uid": "2.25.1",
                    "case_id": CASE,
                    "case_version": 1,
                    "model_name": "shapes",
                    "model_version": "1.2.3",
                    "key": "results/other.dcm",
                    "sha256": "0" * 64,
                    "made_at": NOON,
                },
            )
        asked = request_of.data(AttachmentRequested)
        body = asked.model_copy(update={"sop_instance_uids": (uid,)})
        return request_of.model_copy(update={"body": body})

    return keep_file


class Received:
    """What a PACS was sent."""

    def __init__(self) -> None:
        self.syntaxes: list[str] = []
        self.data_sets: list[bytes] = []

    def __call__(self, event: Any) -> int:
        self.syntaxes.append(str(event.context.transfer_syntax))
        self.data_sets.append(event.request.DataSet.getvalue())
        return 0

    def decoded(self) -> Dataset:
        """Return the last, as its receiver reads it."""
        uid = pydicom.uid.UID(self.syntaxes[-1])
        read = decode_data_set(
            BytesIO(self.data_sets[-1]), uid.is_implicit_VR, uid.is_little_endian
        )
        read.file_meta = pydicom.dataset.FileMetaDataset()
        read.file_meta.TransferSyntaxUID = uid
        return read


def a_test_file(name: str) -> bytes:
    return Path(str(get_testdata_file(name))).read_bytes()


def sop_class_of(content: bytes) -> str:
    return read_header(BytesIO(content), "").sop_class_uid


def kept_syntaxes(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(attachment.c.transfer_syntax_uid)).scalars())


def test_what_the_pacs_takes_goes_byte_for_byte(
    sender_to: Callable[..., Sender], keep: Keep, database: Database
) -> None:
    content, received = a_test_file("MR_small_jp2klossless.dcm"), Received()
    syntaxes = [JPEG2000Lossless, ExplicitVRLittleEndian]
    with a_pacs(received, sop_classes=[sop_class_of(content)], transfer_syntaxes=syntaxes) as port:
        sender_to(port)(keep(content))

    assert received.syntaxes == [JPEG2000Lossless]
    assert content.endswith(received.data_sets[0])
    assert kept_syntaxes(database) == [JPEG2000Lossless]


@pytest.mark.parametrize(
    ("taken", "wanted", "sent"),
    [
        ([ImplicitVRLittleEndian], [], ImplicitVRLittleEndian),
        ([ImplicitVRLittleEndian, ExplicitVRLittleEndian], [], ExplicitVRLittleEndian),
        ([ImplicitVRLittleEndian, RLELossless], [JPEGLSLossless, RLELossless], RLELossless),
        (
            [ImplicitVRLittleEndian, RLELossless, JPEGLSLossless],
            [JPEGLSLossless, RLELossless],
            JPEGLSLossless,
        ),
    ],
)
def test_what_it_does_not_take_is_transcoded_as_the_destination_wants(
    taken: list[str],
    wanted: list[str],
    sent: str,
    sender_to: Callable[..., Sender],
    keep: Keep,
    database: Database,
) -> None:
    content, received = a_test_file("MR_small_jp2klossless.dcm"), Received()
    with a_pacs(received, sop_classes=[sop_class_of(content)], transfer_syntaxes=taken) as port:
        sender_to(port, transfer_syntaxes=tuple(wanted))(keep(content))

    source = pydicom.dcmread(BytesIO(content))
    assert received.syntaxes == kept_syntaxes(database) == [sent]
    assert received.decoded().SOPInstanceUID == source.SOPInstanceUID
    np.testing.assert_array_equal(decode(received.decoded()), decode(source))


def test_a_private_transfer_syntax_goes_where_it_is_taken_and_nowhere_else(
    sender_to: Callable[..., Sender], keep: Keep, database: Database
) -> None:
    source = pydicom.dcmread(BytesIO(a_test_file("CT_small.dcm")))
    source.file_meta.TransferSyntaxUID = PRIVATE
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, source, implicit_vr=False, little_endian=True)
    content, received = buffer.getvalue(), Received()
    request, sop_class = keep(content), sop_class_of(content)
    with a_pacs(received, sop_classes=[sop_class]) as port:
        sender = sender_to(port)
        with pytest.raises(AttachmentRefused, match="0x0122"):
            sender(request)
    with a_pacs(received, sop_classes=[sop_class], transfer_syntaxes=[PRIVATE]) as port:
        archive = sender.destinations["archive"].model_copy(update={"port": port})
        replace(sender, destinations={"archive": archive})(request)

    assert received.syntaxes == [PRIVATE]
    assert content.endswith(received.data_sets[0])


def test_damaged_pixels_are_refused_with_the_reason_for_people(
    sender_to: Callable[..., Sender], keep: Keep, database: Database
) -> None:
    source = pydicom.dcmread(BytesIO(a_test_file("MR_small_jp2klossless.dcm")))
    source.PixelData = source.PixelData[:60] + b"\xff" * 20
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, source)
    request = keep(buffer.getvalue())
    with (
        a_pacs(Received(), sop_classes=[source.SOPClassUID]) as port,
        pytest.raises(AttachmentRefused, match="0x0122"),
    ):
        sender_to(port)(request)

    with database.reading() as connection:
        row = connection.execute(select(attachment)).one()
    assert row.error_comment.startswith("the pixel data does not go into Implicit VR")


def test_warnings_are_taken_and_shown_with_the_comment_of_the_pacs(
    sender_to: Callable[..., Sender], request_of: Envelope, database: Database
) -> None:
    def warn(_event: Any) -> Dataset:
        answer = Dataset()
        answer.Status = 0xB000
        answer.ErrorComment = "Patient ID was coerced"
        return answer

    with a_pacs(warn) as port:
        sender_to(port)(request_of)

    with database.reading() as connection:
        rows = connection.execute(select(attachment)).all()
    assert {(row.status, row.error_comment) for row in rows} == {(0xB000, "Patient ID was coerced")}


@pytest.fixture
def a_large_request(keep: Keep, store: FileInstanceStore) -> Envelope:
    """Keep an instance of 256 MiB; return the request to send it."""
    size = 256 * 1024 * 1024
    source = pydicom.dcmread(BytesIO(a_test_file("CT_small.dcm")))
    source.PixelData = b""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, source)
    request = keep(buffer.getvalue())
    # A hole in a file reads as zeros, and takes no room.
    with store.path("results/other.dcm").open("r+b") as file:
        at = buffer.getvalue().index(b"\xe0\x7f\x10\x00OW") + 8
        file.seek(at)
        file.write(size.to_bytes(4, "little"))
        file.truncate(at + 4 + size)
    return request


def test_a_large_instance_is_never_in_memory(
    sender_to: Callable[..., Sender],
    a_large_request: Envelope,
    a_discarding_pacs: tuple[int, str],
) -> None:
    before = peak_bytes_from_now()

    sender_to(*a_discarding_pacs)(a_large_request)

    assert peak_bytes() - before < 64 * 1024 * 1024


def test_a_large_instance_is_not_even_there_while_the_pacs_does_not_read(
    sender_to: Callable[..., Sender], a_large_request: Envelope
) -> None:
    let_go = threading.Event()

    def stall(event: Any) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            let_go.wait(LONG_S)

    syntaxes, stalled = [ExplicitVRLittleEndian], [(evt.EVT_PDU_RECV, stall)]
    sop_classes = [CTImageStorage]
    with a_pacs(
        Received(), sop_classes=sop_classes, transfer_syntaxes=syntaxes, handlers=stalled
    ) as port:
        before = peak_bytes_from_now()
        try:
            with pytest.raises(PacsUnavailable):
                sender_to(port, caller=Caller("COUNTERSIGN", timeout_s=4))(a_large_request)
        finally:
            let_go.set()

    assert peak_bytes() - before < 64 * 1024 * 1024


@pytest.mark.parametrize("ending", ["stops reading", "aborts", "closes"])
def test_a_pacs_that_fails_in_the_middle_of_an_instance_is_noticed(
    ending: str, sender_to: Callable[..., Sender], keep: Keep
) -> None:
    source = pydicom.dcmread(BytesIO(a_test_file("CT_small.dcm")))
    source.PixelData = b"\0" * (24 * 1024 * 1024)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, source)
    let_go = threading.Event()

    seen: list[object] = []

    def on_pdu(event: Any) -> None:
        if not isinstance(event.pdu, P_DATA_TF):
            return
        seen.append(event.pdu)
        if len(seen) == 20:
            if ending == "stops reading":
                let_go.wait(LONG_S)
            elif ending == "aborts":
                event.assoc.abort()
            else:
                event.assoc.dul.socket.close()

    request = keep(buffer.getvalue())
    syntaxes = [ExplicitVRLittleEndian]
    handlers = [(evt.EVT_PDU_RECV, on_pdu)]
    with a_pacs(
        Received(),
        sop_classes=[source.SOPClassUID],
        transfer_syntaxes=syntaxes,
        handlers=handlers,
    ) as port:
        began = time.monotonic()
        try:
            with pytest.raises(PacsUnavailable, match="archive ended the association"):
                sender_to(port, caller=Caller("COUNTERSIGN", timeout_s=4))(request)
        finally:
            let_go.set()

    assert time.monotonic() - began < LONG_S
