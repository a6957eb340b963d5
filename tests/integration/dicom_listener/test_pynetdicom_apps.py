"""pynetdicom's own applications as peers: they are what many a research gateway is built from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from imaging_store.schema.ingest import instance
from tests.integration.dicom_listener.listener import Listener, a_slice
from tests.peers.processes import LOOPBACK


def app(name: str, listener: Listener, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pynetdicom", name, LOOPBACK, listener.port]
    return subprocess.run(
        [str(part) for part in (*command, *arguments, "-v")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_echoscu_is_answered(listener: Listener) -> None:
    echoed = app("echoscu", listener, "-aec", "COUNTERSIGN")

    assert echoed.returncode == 0
    assert "Status: 0x0000" in echoed.stderr + echoed.stdout


def test_what_storescu_sends_is_kept(listener: Listener, tmp_path: Path) -> None:
    ds = a_slice()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path / "slice.dcm"
    ds.save_as(path, enforce_file_format=True)

    sent = app("storescu", listener, path, "-aec", "COUNTERSIGN", "-aet", "CT1")

    assert "Received Store Response (Status: 0x0000" in sent.stderr + sent.stdout
    [row] = listener.rows(instance)
    assert row.calling_ae_title == "CT1"
    assert dcmread(listener.store.path(row.key)).PixelData == ds.PixelData


def test_a_called_title_that_is_not_ours_is_rejected_in_the_standards_words(
    listener: Listener,
) -> None:
    rejected = app("echoscu", listener, "-aec", "ANY-SCP")

    assert rejected.returncode == 1
    assert "Called AE title not recognised" in rejected.stderr + rejected.stdout
