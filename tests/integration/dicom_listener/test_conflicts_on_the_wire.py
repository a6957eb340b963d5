"""Contradictions that real senders bring, and a listener that is killed over them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from imaging_store.schema.ingest import (
    conflict,
    conflicting_instance,
    duplicate_instance,
    instance,
    quarantined_instance,
)
from message_contracts.ingest import StudyConflicted
from message_contracts.intake import InstanceDuplicated
from tests.integration.dicom_listener.listener import Listener, a_slice, send, sendable
from tests.peers.processes import LOOPBACK, wait_until


def of(ds: Dataset, **changes: object) -> Dataset:
    same = {name: ds[name].value for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    return a_slice(**{**same, "SOPInstanceUID": generate_uid(), **changes})


def storescu(listener: Listener, folder: Path, *sent: Dataset, syntax: str = "-xe") -> str:
    """Send data sets with DCMTK, which encodes them as ``syntax`` proposes."""
    program = shutil.which("storescu")
    assert program, "DCMTK is not installed"
    folder.mkdir()
    for number, ds in enumerate(sent):
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    files = sorted(folder.iterdir())
    command = [program, "-v", "-aet", "CT1", "-aec", "COUNTERSIGN", syntax, LOOPBACK]
    done = subprocess.run(
        [*command, str(listener.port), *map(str, files)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    return done.stdout + done.stderr


def test_storescu_is_answered_success_and_a_person_is_asked_once(
    listener: Listener, tmp_path: Path
) -> None:
    first = a_slice()
    others = [of(first, PatientID="P2"), of(first, PatientID="P2"), of(first, PatientName="DOE^J")]

    told = storescu(listener, tmp_path / "sent", first, *others)

    assert told.count("Received Store Response (Success)") == 4
    assert len(listener.rows(instance)) == 4
    assert sorted(row.differing for row in listener.rows(conflict)) == [
        ["PatientID"],
        ["PatientName"],
    ]
    assert len(listener.rows(conflicting_instance)) == 3
    assert len(listener.messages(StudyConflicted)) == 2


def test_the_same_instance_in_another_transfer_syntax_is_noted_only(
    listener: Listener, tmp_path: Path
) -> None:
    ds = a_slice()
    storescu(listener, tmp_path / "explicit", ds)

    told = storescu(listener, tmp_path / "implicit", ds, syntax="-xi")

    assert "Received Store Response (Success)" in told
    wait_until(
        lambda: [row.difference for row in listener.rows(duplicate_instance)] == ["encoding"],
        what="the comparison",
    )
    assert listener.rows(conflict) == []


def test_neither_a_duplicate_nor_its_comparison_is_lost_by_kill_minus_9(
    listener: Listener,
) -> None:
    firsts = [first := a_slice(), *(of(first) for _ in range(9))]
    again = [of(each, SOPInstanceUID=each.SOPInstanceUID, InstanceNumber=7) for each in firsts]
    send(listener.port, [sendable(each) for each in firsts])

    assert send(listener.port, [sendable(each) for each in again]) == [0x0000] * 10
    listener.process.kill()
    beside = listener.rows(duplicate_instance)
    listener.start()

    assert len(beside) == len(listener.messages(InstanceDuplicated)) == 10
    assert all(listener.store.exists(row.key) for row in beside)
    wait_until(
        lambda: {row.difference for row in listener.rows(duplicate_instance)} == {"content"},
        what="every comparison",
    )
    assert len(listener.rows(conflict)) == len(listener.messages(StudyConflicted)) == 1
    assert len(listener.rows(conflicting_instance)) == 10


def test_what_is_not_understood_is_kept_with_what_the_command_said(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener()
    ds = a_slice()
    del ds.StudyInstanceUID

    assert send(listener.port, [sendable(ds), sendable(ds)]) == [0xC000] * 2

    [found] = listener.rows(quarantined_instance)
    assert (found.sop_class_uid, found.sop_instance_uid) == (ds.SOPClassUID, ds.SOPInstanceUID)
    assert found.transfer_syntax_uid == ExplicitVRLittleEndian
    assert (found.calling_ae_title, found.called_ae_title) == ("MODALITY", "COUNTERSIGN")
    assert found.reason == "Study Instance UID is missing"
