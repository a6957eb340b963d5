from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from dicom_listener.dicomweb.bulk_data import Pixels, read_dataset
from dicom_listener.dicomweb.metadata import metadata_of
from dicom_listener.part10 import file_meta
from imaging_pixels import inflation
from imaging_pixels.image_pixel import UndecodablePixels
from imaging_pixels.transcode import transcode
from imaging_store.instances import FileInstanceStore, NotInStore
from tests.synthetic_images import an_image, part10

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


def item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize("has_table", [True, False])
def test_frames_are_read_from_their_file_one_by_one(
    store: FileInstanceStore, has_table: bool
) -> None:
    size_bytes, count = 100_000, 50
    frames = [b"\xff\x4f\xff\x51" + bytes([number]) * (size_bytes - 4) for number in range(count)]
    offsets = [number * (size_bytes + 8) for number in range(count)] if has_table else []
    pixels = item(struct.pack(f"<{len(offsets)}I", *offsets)) + b"".join(map(item, frames))
    end = b"\xfe\xff\xdd\xe0\0\0\0\0" + b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0\0\0\0\0"
    number_of_frames = b"\x28\x00\x08\x00IS\x02\x00" + str(count).encode()
    start = number_of_frames + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
    instance = kept(store, start + pixels + end, JPEG2000Lossless)

    tracemalloc.start()
    read = Pixels(read_dataset(store, instance), store, instance)
    are_whole = [read.stored(number + 1) == frame for number, frame in enumerate(frames)]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert are_whole == [True] * count
    assert peak_bytes < 10 * size_bytes


def test_frames_are_decoded_one_by_one(store: FileInstanceStore) -> None:
    stored = np.random.default_rng(4).integers(0, 2**16, (20, 128, 128), "u2")
    native = part10(an_image(stored, frames=True))
    instance = kept(store, transcode(native, JPEG2000Lossless), JPEG2000Lossless)
    length = stored[0].nbytes

    dataset = read_dataset(store, instance)
    read = Pixels(dataset, store, instance)
    frames = [read.uncompressed(number) for number in (20, *range(1, 21))]

    assert frames == [each.tobytes() for each in (stored[-1], *stored)]
    assert len(dataset.PixelData) < 2 * length
