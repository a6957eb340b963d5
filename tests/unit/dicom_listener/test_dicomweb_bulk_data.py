from __future__ import annotations

import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_listener.dicomweb.bulk_data import read_dataset
from dicom_listener.dicomweb.metadata import metadata_of
from dicom_listener.part10 import file_meta
from imaging_pixels import inflation
from imaging_pixels.image_pixel import UndecodablePixels
from imaging_store.instances import FileInstanceStore, NotInStore

SOP_CLASS_UID, UID = "1.2.840.10008.5.1.4.1.1.2", "2.25.1"


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    return FileInstanceStore(tmp_path)


def kept(store: FileInstanceStore, data_set: bytes, transfer_syntax_uid: str) -> Any:
    """Keep a data set, and return the row of it."""
    meta = file_meta(SOP_CLASS_UID, UID, transfer_syntax_uid, "")
    store.put_artifact("instance", meta + data_set)
    return SimpleNamespace(
        key="instance",
        transfer_syntax_uid=transfer_syntax_uid,
        study_instance_uid=UID,
        series_instance_uid=UID,
        sop_instance_uid=UID,
        sop_class_uid=SOP_CLASS_UID,
        modality="CT",
        instance_number=1,
        number_of_frames=1,
        rows=None,
        columns=None,
    )


def test_what_inflates_without_end_is_not_read(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflation, "MOST_BYTES", 2**20)
    size_bytes = 2**22
    pixels = b"\xe0\x7f\x10\x00OW\0\0" + size_bytes.to_bytes(4, "little") + bytes(size_bytes)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = deflater.compress(pixels) + deflater.flush()
    instance = kept(store, deflated, DeflatedExplicitVRLittleEndian)

    with pytest.raises(UndecodablePixels, match="inflates to more than"):
        read_dataset(store, instance)
    [metadata] = json.loads(b"".join(metadata_of(store, [instance], "")))

    # What the index knows.
    assert metadata["00080018"] == {"vr": "UI", "Value": [UID]}
    assert "7FE00010" not in metadata


@pytest.mark.parametrize(
    "transfer_syntax_uid", [DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2"]
)
def test_what_has_been_purged_meanwhile_is_left_out(
    store: FileInstanceStore, transfer_syntax_uid: str
) -> None:
    instance = kept(store, b"", transfer_syntax_uid)
    store.path("instance").unlink()

    with pytest.raises(NotInStore):
        read_dataset(store, instance)
    assert b"".join(metadata_of(store, [instance], "")) == b"[]"
