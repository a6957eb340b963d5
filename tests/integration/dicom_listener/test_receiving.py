"""Real requestors send over real associations; what is kept is compared byte for byte."""

import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import xxhash
from pydicom import dcmread
from pydicom.data import get_testdata_files
from pydicom.dataset import FileMetaDataset
from pynetdicom import AE
from pynetdicom.sop_class import ColorPaletteStorage, StudyRootQueryRetrieveInformationModelFind

from imaging_store.schema.ingest import (
    duplicate_instance,
    instance,
    quarantined_instance,
    study,
)
from tests.integration.dicom_listener.listener import (
    CT,
    Listener,
    Sendable,
    a_slice,
    associate,
    send,
    sendable,
    sendable_file,
    store,
)
from tests.peers.processes import LOOPBACK, find_program, free_port, require, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

_FILES_AT_A_TIME = 40
EXPLICIT = "1.2.840.10008.1.2.1"
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def dcmtk(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = require(find_program(program), program, "dcmtk")
    return subprocess.run(
        [path, "-aec", "COUNTERSIGN", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"TCP_NODELAY": "1", "PATH": "/usr/bin:/bin"},
        check=False,
    )


def expected_status(path: Path) -> set[int]:
    """Return what may be answered for a file, by what pydicom makes of it."""
    try:
        ds = dcmread(path, force=True, stop_before_pixels=True)
        has_all = all(ds.get(keyword) for keyword in UIDS)
    except Exception:  # noqa: BLE001 - whatever a malformed file does to pydicom
        return {0x0000, 0xC000}
    return {0x0000} if has_all else {0xC000}


def kept_by_digest(listener: Listener) -> dict[str, str]:
    """Keys of everything that an index row of any kind points at."""
    rows = (*listener.rows(instance), *listener.rows(duplicate_instance))
    quarantined = {row.id: row.key for row in listener.rows(quarantined_instance)}
    return quarantined | {row.digest: row.key for row in rows}


def batched(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    rest = list(paths)
    while rest:
        yield rest[:size]
        rest = rest[size:]


def check_every_file(listener: Listener, paths: list[Path]) -> None:
    readable = {}
    for path in paths:
        with suppress(Exception):  # not even the File Meta Information of some can be read
            readable[path] = sendable_file(path)
    assert len(readable) > 0.9 * len(paths) > 30
    for chunk in batched(readable, _FILES_AT_A_TIME):
        statuses = send(listener.port, [readable[path] for path in chunk])
        for path, status in zip(chunk, statuses, strict=True):
            assert status in expected_status(path), f"{path.name}: {status:04X}"
    kept = kept_by_digest(listener)
    for path, sent in readable.items():
        content = listener.store.read(kept[xxhash.xxh3_128_hexdigest(sent.data)])
        assert content[128:132] == b"DICM"
        assert content.endswith(sent.data), f"{path.name} was changed"
    assert listener.unfinished() == []
    assert dcmtk("echoscu", LOOPBACK, listener.port).returncode == 0


@pytest.mark.slow
def test_every_test_file_of_pydicom_is_kept_as_it_is(listener: Listener) -> None:
    files = [Path(name) for name in get_testdata_files("*.dcm")]

    check_every_file(listener, files)


@pytest.mark.slow
def test_every_real_file_is_kept_as_it_is(listener: Listener, test_data: Path) -> None:
    check_every_file(listener, sorted((test_data / "dicom").rglob("*.dcm")))


def test_echoscu_is_answered(listener: Listener) -> None:
    assert dcmtk("echoscu", LOOPBACK, listener.port).returncode == 0


def test_storescu_is_answered_and_the_file_is_a_part_10_file(
    listener: Listener, tmp_path: Path
) -> None:
    ds = a_slice()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    path = tmp_path / "slice.dcm"
    ds.save_as(path, enforce_file_format=True)

    sent = dcmtk("storescu", "-v", "-aet", "CT1", LOOPBACK, listener.port, path)

    assert "Received Store Response (Success)" in sent.stderr + sent.stdout
    [row] = listener.rows(instance)
    kept = dcmread(listener.store.path(row.key))
    assert kept.file_meta.SourceApplicationEntityTitle == "CT1"
    assert kept.SOPInstanceUID == ds.SOPInstanceUID
    assert row.sop_instance_uid == ds.SOPInstanceUID
    assert (row.calling_ae_title, row.called_ae_title) == ("CT1", "COUNTERSIGN")


@pytest.mark.parametrize(("priority", "is_urgent"), [(0, False), (1, True), (2, False)])
def test_what_is_sent_with_high_priority_is_urgent(
    priority: int, is_urgent: bool, listener: Listener
) -> None:
    sent = sendable(a_slice())
    association = associate(listener.port, (sent.sop_class_uid, sent.transfer_syntax_uid))

    store(association, sent, priority)
    association.release()

    assert [row.urgent for row in listener.rows(instance)] == [is_urgent]


def test_the_index_says_what_the_data_set_says(listener: Listener) -> None:
    ds = a_slice(
        PatientName="Wang^XiaoDong=王^小東", IssuerOfPatientID="", TimezoneOffsetFromUTC="+0530"
    )

    send(listener.port, [sendable(ds)])

    [row] = listener.rows(study)
    assert row.patient_name == "Wang^XiaoDong=王^小東"
    assert (row.patient_id, row.issuer_of_patient_id) == ("P1", "LOCAL")
    assert row.started == "2026-07-04T12:00:00+05:30"


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.9999", "1.3.12.2.1107.5.9.1"])
def test_a_storage_class_that_nobody_knows_is_received(listener: Listener, sop_class: str) -> None:
    ds = a_slice(SOPClassUID=sop_class)

    assert send(listener.port, [sendable(ds)]) == [0x0000]


@pytest.mark.parametrize(
    "abstract_syntax", [ColorPaletteStorage, StudyRootQueryRetrieveInformationModelFind]
)
def test_what_is_no_storage_of_patients_is_not_accepted(
    listener: Listener, abstract_syntax: str
) -> None:
    association = associate(listener.port, (abstract_syntax, EXPLICIT), (CT, EXPLICIT))

    rejected = association.rejected_contexts

    assert [(context.abstract_syntax, context.result) for context in rejected] == [
        (abstract_syntax, 3)
    ]
    association.release()


def test_the_first_transfer_syntax_of_the_standard_is_accepted(listener: Listener) -> None:
    ae = AE()
    ae.add_requested_context(
        CT, ["1.2.840.113619.5.2", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2"]
    )
    association = ae.associate(LOOPBACK, listener.port, ae_title="COUNTERSIGN")

    [context] = association.accepted_contexts

    assert context.transfer_syntax == ["1.2.840.10008.1.2.4.90"]
    association.release()


def test_a_data_set_without_a_study_is_quarantined_with_its_reason(listener: Listener) -> None:
    ds = a_slice()
    del ds.StudyInstanceUID
    sent = sendable(ds)
    association = associate(listener.port, (CT, EXPLICIT))

    response = store(association, sent)
    association.release()

    assert response.Status == 0xC000
    assert response.ErrorComment == "Study Instance UID is missing; quarantined"
    [row] = listener.rows(quarantined_instance)
    assert row.reason == "Study Instance UID is missing"
    assert listener.store.read(row.key).endswith(sent.data)
    assert listener.store.read(row.key.replace(".dcm", ".reason.txt")) == b"%s\n" % (
        row.reason.encode()
    )
    assert listener.rows(instance) == []


def test_what_is_no_data_set_at_all_is_quarantined_once(listener: Listener) -> None:
    sent = Sendable(b"this is not DICOM" * 10, EXPLICIT, CT, "1.2.3")

    statuses = send(listener.port, [sent, sent])

    assert statuses == [0xC000, 0xC000]
    assert len(listener.rows(quarantined_instance)) == 1


@pytest.mark.parametrize("field", ["sop_class_uid", "sop_instance_uid"])
def test_another_instance_than_the_command_says_is_refused(listener: Listener, field: str) -> None:
    sent = sendable(a_slice())
    other = {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4", "sop_instance_uid": "1.2.3"}
    lying = Sendable(**{**vars(sent), field: other[field]})

    assert send(listener.port, [lying, sent]) == [0xA900, 0x0000]
    assert len(listener.rows(instance)) == 1


def test_truncated_pixels_are_kept(listener: Listener) -> None:
    sent = sendable(a_slice())
    truncated = Sendable(**{**vars(sent), "data": sent.data[:-100]})

    assert send(listener.port, [truncated]) == [0x0000]


@pytest.mark.parametrize("private_bytes", [8_000, 30_000, 200_000])
def test_a_long_header_is_read(listener: Listener, private_bytes: int) -> None:
    ds = a_slice()
    ds.add_new(0x00091001, "OB", bytes(private_bytes))
    ds.add_new(0x00090010, "LO", "PRIVATE")

    assert send(listener.port, [sendable(ds)]) == [0x0000]
    assert listener.rows(instance)[0].makes_version


def test_too_many_associations_are_rejected(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener(max_associations=2)
    first, second = (associate(listener.port, (CT, EXPLICIT)) for _ in range(2))

    third = associate(listener.port, (CT, EXPLICIT))

    assert third.is_rejected
    answer = third.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    first.release()
    fourth = wait_until(
        lambda: (
            association
            if (association := associate(listener.port, (CT, EXPLICIT))).is_established
            else None
        ),
        what="room for an association",
    )
    second.release()
    fourth.release()


def test_nothing_of_the_patient_is_logged(listener: Listener) -> None:
    secrets = {
        "PatientName": "Zyxwvut^Quentin",
        "PatientID": "SECRET4711",
        "PatientBirthDate": "19010203",
        "AccessionNumber": "ACC98765",
        "StudyDescription": "Xerophthalmia",
        "SpecificCharacterSet": "NO SUCH SET",
    }
    ds = a_slice(**secrets)
    broken = a_slice(**secrets)
    del broken.StudyInstanceUID
    other = a_slice(**secrets, SOPInstanceUID=ds.SOPInstanceUID, InstanceNumber=7)

    send(listener.port, [sendable(ds), sendable(broken), sendable(other)])

    wait_until(lambda: '"outcome": "released"' in listener.log, what="a log line")
    assert "instance.quarantined" in listener.log
    assert "instance.duplicated" in listener.log
    for secret in (*secrets.values(), "Zyxwvut"):
        assert secret not in listener.log


def test_metrics_of_all_processes_are_told_at_one_address(
    start_listener: Callable[..., Listener],
) -> None:
    port = free_port()
    listener = start_listener(health_port=port)
    broken = a_slice()
    del broken.StudyInstanceUID
    for ds in (a_slice(), a_slice(), broken):
        send(listener.port, [sendable(ds)])

    released = '"outcome": "released"'
    wait_until(lambda: listener.log.count(released) >= 3, what="the ends")
    metrics = httpx.get(f"http://{LOOPBACK}:{port}/metrics", trust_env=False, timeout=60).text

    assert 'countersign_instances_answered_total{status="0000"} 2.0' in metrics
    assert 'countersign_instances_answered_total{status="C000"} 1.0' in metrics
    assert 'countersign_associations_ended_total{outcome="released"} 3.0' in metrics
    ready = f"http://{LOOPBACK}:{port}/health/ready"
    wait_until(lambda: httpx.get(ready, trust_env=False, timeout=60).is_success, what="readiness")
