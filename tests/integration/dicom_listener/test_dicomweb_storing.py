"""STOW-RS over real connections: what is stored, what is refused, and what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import xxhash
from pydicom.dataset import Dataset

from imaging_store.schema.ingest import (
    instance,
    open_association,
    quarantined_instance,
    study,
)
from message_contracts import catalogue
from message_contracts.ingest import StudyOpened
from service_runtime.messaging.tables import message
from tests.integration.dicom_listener.dicomweb_process import (
    BOUNDARY,
    POSTED,
    DicomWebProcess,
    body_of,
    post,
)
from tests.integration.dicom_listener.dicomweb_studies import file_of
from tests.integration.dicom_listener.listener import a_slice, sendable
from tests.integration.dicom_listener.small_disk import mounted
from tests.peak_memory import peak_bytes
from tests.peers.processes import LOOPBACK, wait_until

Start = Callable[..., DicomWebProcess]
MEBIBYTE = 1024 * 1024


@pytest.fixture
def own_dicomweb(start_dicomweb: Start) -> DicomWebProcess:
    """Start a process of the test's own, to be killed or measured."""
    return start_dicomweb()


@pytest.fixture(scope="module")
def dicomweb(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DicomWebProcess]:
    """Start a process for all tests that tell what is theirs by its UIDs."""
    folder = tmp_path_factory.mktemp("dicomweb")
    shutil.copyfile(sqlite_template, folder / "countersign.sqlite3")
    with DicomWebProcess(folder, f"sqlite:///{folder / 'countersign.sqlite3'}") as process:
        yield process


def kept(dicomweb: DicomWebProcess, *sent: Dataset) -> list[str]:
    """Return the SOP Instance UIDs of those that are in the index."""
    uids = {str(ds.SOPInstanceUID) for ds in sent}
    return [row.sop_instance_uid for row in dicomweb.rows(instance) if row.sop_instance_uid in uids]


def failures(answer: httpx.Response) -> dict[str, int]:
    """Return the failure reasons by SOP Instance UID."""
    items = answer.json().get("00081198", {}).get("Value", [])
    return {item["00081155"]["Value"][0]: item["00081197"]["Value"][0] for item in items}


def unfinished(dicomweb: DicomWebProcess) -> list[Path]:
    return list((dicomweb.folder / "instances" / "incoming").iterdir())


def test_what_is_stored_is_kept_byte_for_byte_and_announced(dicomweb: DicomWebProcess) -> None:
    ds = a_slice()
    other = a_slice(StudyInstanceUID=ds.StudyInstanceUID)

    answer = post(dicomweb.client(), file_of(ds), file_of(other))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    [url] = answer.json()["00081190"]["Value"]
    stored = answer.json()["00081199"]["Value"]
    assert url == f"{dicomweb.url}/studies/{ds.StudyInstanceUID}"
    assert {item["00081155"]["Value"][0] for item in stored} == {
        ds.SOPInstanceUID,
        other.SOPInstanceUID,
    }
    rows = {row.sop_instance_uid: row for row in dicomweb.rows(instance)}
    for each in (ds, other):
        row, data = rows[each.SOPInstanceUID], sendable(each).data
        assert row.digest == xxhash.xxh3_128_hexdigest(data)
        assert dicomweb.store.read(row.key).endswith(data)
        assert row.calling_ae_title == "DICOMWEB"
        assert (row.rows, row.columns) == (8, 8)
    bodies = [catalogue.decode(row.body).body for row in dicomweb.rows(message)]
    assert StudyOpened in map(type, bodies)
    assert dicomweb.rows(open_association) == []


def test_a_part_that_is_refused_takes_no_other_with_it(dicomweb: DicomWebProcess) -> None:
    good, other_class, nowhere = a_slice(), a_slice(), a_slice()
    del nowhere.StudyInstanceUID
    unknown = "1.2.840.10008.9.9.9"
    quarantined = len(dicomweb.rows(quarantined_instance))

    answer = post(
        dicomweb.client(),
        file_of(other_class, MediaStorageSOPClassUID="1.2.840.10008.5.1.4.1.1.4"),
        file_of(good),
        file_of(nowhere),
        file_of(a_slice(SOPInstanceUID="1.2.7"), MediaStorageSOPClassUID=unknown),
        file_of(a_slice(SOPInstanceUID="1.2.8")).replace(
            b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.9.9.9"
        ),
        b"GIF89a",
    )

    assert answer.status_code == 202
    assert failures(answer) == {
        other_class.SOPInstanceUID: 0xA900,
        nowhere.SOPInstanceUID: 0xC000,
        "1.2.7": 0x0122,
        "1.2.8": 0xC122,
    }
    assert len(answer.json()["0008119A"]["Value"]) == 1
    assert kept(dicomweb, good, other_class, nowhere) == [good.SOPInstanceUID]
    assert len(dicomweb.rows(quarantined_instance)) == quarantined + 1
    assert unfinished(dicomweb) == []


def test_where_nothing_is_stored_the_answer_is_409(dicomweb: DicomWebProcess) -> None:
    here, elsewhere = a_slice(), a_slice()
    client = dicomweb.client()

    nothing = post(client, file_of(elsewhere), path=f"/studies/{here.StudyInstanceUID}")
    some = post(client, file_of(here), file_of(elsewhere), path=f"/studies/{here.StudyInstanceUID}")

    assert nothing.status_code == 409
    assert failures(nothing) == {elsewhere.SOPInstanceUID: 0xA900}
    assert some.status_code == 202
    assert failures(some) == {elsewhere.SOPInstanceUID: 0xA900}
    assert kept(dicomweb, here, elsewhere) == [here.SOPInstanceUID]


def test_the_same_again_is_stored_once(dicomweb: DicomWebProcess) -> None:
    client, ds = dicomweb.client(), a_slice()
    file = file_of(ds)

    answers = [post(client, file, file), post(client, file)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert kept(dicomweb, ds) == [ds.SOPInstanceUID]


RUBBISH = [
    ("application/json", b"{}", 415),
    ("multipart/form-data; boundary=b", b"", 415),
    ('multipart/related; type="application/dicom+json"; boundary=b', b"", 415),
    ('multipart/related; type="application/dicom"', b"", 400),
    (POSTED, b"", 400),
    (POSTED, f"--{BOUNDARY}--".encode(), 400),
    (POSTED, os.urandom(100_000), 400),
    (POSTED.replace(BOUNDARY, "another"), body_of([b"x"]), 400),
    (POSTED, f"--{BOUNDARY}\r\n".encode() + b"A: " + b"x" * 50_000, 400),
]


def test_rubbish_is_told_so(dicomweb: DicomWebProcess) -> None:
    client = dicomweb.client()

    answers = [
        client.post("/studies", content=content, headers={"Content-Type": content_type})
        for content_type, content, _ in RUBBISH
    ]

    assert [answer.status_code for answer in answers] == [status for _, _, status in RUBBISH]
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert post(client, file_of(a_slice())).status_code == 200


def test_a_body_that_ends_early_keeps_what_was_whole(dicomweb: DicomWebProcess) -> None:
    whole, cut = a_slice(), a_slice()
    content = body_of([file_of(whole), file_of(cut)])[:-100]

    answer = dicomweb.client().post("/studies", content=content, headers={"Content-Type": POSTED})

    assert answer.status_code == 400
    assert "1 instances before it were stored" in answer.json()["detail"]
    assert kept(dicomweb, whole, cut) == [whole.SOPInstanceUID]
    assert unfinished(dicomweb) == []


def test_who_may_not_store_is_told_so(dicomweb: DicomWebProcess) -> None:
    ds = a_slice()
    file = file_of(ds)
    admin, doctor = dicomweb.client(), dicomweb.client("doctor")
    closed = dicomweb.client()
    dicomweb.disable(closed.headers["Authorization"].removeprefix("Bearer "))

    forbidden = post(doctor, file)
    shut = post(closed, file)
    del admin.headers["Authorization"]
    anonymous = post(admin, file)
    unsearched = [
        admin.get(path).status_code
        for path in ("/studies", "/studies/1.2/metadata", "/studies/1.2/thumbnail", "/instances")
    ]

    assert (forbidden.status_code, forbidden.json()["type"]) == (
        403,
        "urn:countersign:problem:wrong-role",
    )
    assert [shut.status_code, anonymous.status_code, *unsearched] == [401] * 6
    assert anonymous.headers["WWW-Authenticate"] == "Bearer"
    assert kept(dicomweb, ds) == []


def test_a_head_of_no_end_is_refused(dicomweb: DicomWebProcess) -> None:
    with socket.create_connection((LOOPBACK, dicomweb.port)) as connection:
        connection.settimeout(60)
        connection.sendall(b"GET /dicom-web/studies HTTP/1.1\r\nX: " + b"x" * 200_000)
        answer = connection.recv(1000)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert dicomweb.client().get("/studies").is_success


def test_a_body_that_is_too_long_is_refused(start_dicomweb: Start) -> None:
    dicomweb = start_dicomweb(dicomweb_max_post_mib=1)
    client = dicomweb.client()
    long = body_of([file_of(a_slice()), bytes(2 * MEBIBYTE)])

    told = client.post("/studies", content=long, headers={"Content-Type": POSTED})
    untold = client.post("/studies", content=iter([long]), headers={"Content-Type": POSTED})

    assert (told.status_code, untold.status_code) == (413, 413)
    assert unfinished(dicomweb) == []


def test_a_full_store_is_503_until_room_is_made(start_dicomweb: Start, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 8) as disk:
        dicomweb = start_dicomweb(store_url=f"file:{disk.folder}")
        client = dicomweb.client()
        before = post(client, file_of(a_slice()))
        disk.fill(leave_bytes=64 * 1024)
        large = [a_slice(PixelData=bytes(300_000)) for _ in range(2)]

        full = post(client, *map(file_of, large))
        left = list((disk.folder / "incoming").iterdir())
        disk.make_room()
        after = post(client, *map(file_of, large))

    assert before.status_code == 200
    assert full.status_code == 503
    assert int(full.headers["Retry-After"]) > 0
    assert failures(full) == {ds.SOPInstanceUID: 0xA700 for ds in large}
    assert left == []
    assert after.status_code == 200


def test_a_kill_in_the_middle_leaves_nothing_half_written(own_dicomweb: DicomWebProcess) -> None:
    dicomweb = own_dicomweb
    whole, cut = a_slice(), a_slice(PixelData=os.urandom(4 * MEBIBYTE))
    content = body_of([file_of(whole), file_of(cut)])
    authorization = dicomweb.client().headers["Authorization"]
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Type: {POSTED}\r\n"
        f"Authorization: {authorization}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((LOOPBACK, dicomweb.port)) as connection:
        connection.sendall(head.encode() + content[: 3 * MEBIBYTE])
        wait_until(lambda: dicomweb.rows(instance), what="the first is stored")
        dicomweb.process.signal(signal.SIGKILL)
        wait_until(lambda: not dicomweb.process.is_running(), what="the process has ended")
    dicomweb.start()

    again = post(dicomweb.client(), file_of(whole), file_of(cut))

    assert unfinished(dicomweb) == []
    assert again.status_code == 200
    assert len(dicomweb.rows(instance)) == 2
    assert len(dicomweb.rows(study)) == 2


def test_a_part_of_500_mb_stays_out_of_memory(own_dicomweb: DicomWebProcess) -> None:
    dicomweb = own_dicomweb
    client = dicomweb.client()
    ds = a_slice(NumberOfFrames=4_000_000)
    post(client, file_of(a_slice()))
    before = peak_bytes(dicomweb.process.pid)
    size = 500 * MEBIBYTE
    start = file_of(ds)[:-8]
    start = start[: start.rindex(b"\xe0\x7f\x10\x00")]
    piece = bytes(MEBIBYTE)

    def content() -> Iterator[bytes]:
        yield f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + start
        yield b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little")
        for _ in range(500):
            yield piece
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    answer = client.post("/studies", content=content(), headers={"Content-Type": POSTED})
    [row] = [row for row in dicomweb.rows(instance) if row.size_bytes > size]
    retrieved = 0
    url = f"/studies/{row.study_instance_uid}"
    with client.stream("GET", url) as stream:
        for each in stream.iter_bytes():
            retrieved += len(each)

    assert answer.status_code == 200
    assert retrieved > size
    assert peak_bytes(dicomweb.process.pid) - before < 64 * MEBIBYTE


def test_nothing_of_a_patient_stands_in_the_log(dicomweb: DicomWebProcess) -> None:
    client, before = dicomweb.client(), len(dicomweb.log)
    ds = a_slice(PatientName="Quill^Ada", PatientID="QUILL-1", AccessionNumber="QUILL-2")
    post(client, file_of(ds))
    post(client, b"Quill")

    client.get("/studies", params={"PatientName": "Quill*", "PatientID": "QUILL-1"})
    client.get("/studies", params={"Quill": "QUILL-1"})
    client.get(f"/studies/{ds.StudyInstanceUID}/metadata")
    client.get("/studies/Quill/thumbnail")

    # An answer is logged when it has been sent.
    wait_until(lambda: dicomweb.log.count("request.answered", before) >= 6, what="six lines")
    log = dicomweb.log[before:]
    assert log.count("request.answered") == 6
    assert "quill" not in log.lower()
    assert "dropped_keys" not in log


def test_the_process_drains_when_asked(own_dicomweb: DicomWebProcess) -> None:
    assert own_dicomweb.process.stop() == 0
