from __future__ import annotations

import base64
import json
import struct
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless

from dicom_listener.dicomweb import bulk_data, pixels
from dicom_listener.dicomweb.bulk_data import read_dataset, value_at
from dicom_listener.dicomweb.memory import Memory, OutOfMemory
from dicom_listener.dicomweb.metadata import metadata_of
from dicom_listener.dicomweb.pixels import open_pixels
from dicom_listener.part10 import file_meta
from imaging_pixels import encapsulated
from imaging_pixels.image_pixel import UndecodablePixels
from imaging_pixels.transcode import transcode
from imaging_store.instances import FileInstanceStore, NotInStore
from tests.drawn_images import with_cells
from tests.synthetic_images import an_image, part10

SOP_CLASS_UID, UID = "1.2.840.10008.5.1.4.1.1.2", "2.25.1"
BULK_DATA = f"/studies/{UID}/series/{UID}/instances/{UID}/bulkdata"


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
    monkeypatch.setattr(bulk_data, "MOST_INFLATED_BYTES", 2**20)
    instance = kept(store, deflated(2**22), DeflatedExplicitVRLittleEndian)

    with pytest.raises(UndecodablePixels, match="inflates to more than"):
        read_dataset(store, instance)
    [metadata] = json.loads(b"".join(metadata_of(store, [instance], "")))

    # What the index knows.
    assert metadata["00080018"] == {"vr": "UI", "Value": [UID]}
    assert "7FE00010" not in metadata


def deflated(size_bytes: int) -> bytes:
    """Return a deflated data set of zeros."""
    pixels = b"\xe0\x7f\x10\x00OW\0\0" + size_bytes.to_bytes(4, "little") + bytes(size_bytes)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(pixels) + deflater.flush()


def test_deflated_data_sets_that_are_being_sent_have_so_much_memory_and_no_more(
    store: FileInstanceStore,
) -> None:
    instance = kept(store, deflated(2**20), DeflatedExplicitVRLittleEndian)
    memory = Memory(5 * 2**19)

    held = [open_pixels(store, instance, memory) for _ in range(2)]
    with pytest.raises(OutOfMemory) as refused:
        open_pixels(store, instance, memory)
    held.pop()
    held.append(open_pixels(store, instance, memory))

    assert refused.value.status == 503
    assert int(refused.value.headers["Retry-After"]) > 0
    assert len(held) == 2


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


def many_frames(frames: list[bytes], *, has_table: bool) -> bytes:
    """Return a data set of compressed frames, each in a fragment of its own."""
    offsets, at = [], 0
    for frame in frames:
        offsets.append(at)
        at += len(frame) + 8
    table = struct.pack(f"<{len(offsets)}I", *offsets) if has_table else b""
    pixels = item(table) + b"".join(map(item, frames))
    end = b"\xfe\xff\xdd\xe0\0\0\0\0" + b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0\0\0\0\0"
    count = str(len(frames)).encode()
    count += b" " * (len(count) % 2)
    number_of_frames = b"\x28\x00\x08\x00IS" + struct.pack("<H", len(count)) + count
    return number_of_frames + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + pixels + end


@pytest.mark.parametrize("has_table", [True, False])
def test_frames_are_read_from_their_file_one_by_one(
    store: FileInstanceStore, has_table: bool
) -> None:
    size_bytes, count = 100_000, 50
    frames = [b"\xff\x4f\xff\x51" + bytes([number]) * (size_bytes - 4) for number in range(count)]
    instance = kept(store, many_frames(frames, has_table=has_table), JPEG2000Lossless)

    tracemalloc.start()
    read = open_pixels(store, instance)
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

    read = open_pixels(store, instance)
    frames = [read.uncompressed(number) for number in (20, *range(1, 21))]

    assert frames == [each.tobytes() for each in (stored[-1], *stored)]
    assert len(read.dataset.PixelData) < 2 * length


def test_all_of_a_thousand_frames_are_found_in_one_look_at_their_file(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [b"\xff\x4f\xff\x51" + struct.pack("<L", number) for number in range(1000)]
    instance = kept(store, many_frames(frames, has_table=False), JPEG2000Lossless)
    looked_at: list[int] = []
    look = encapsulated._fragment

    def counted(value: Any, at: int) -> tuple[int, int]:
        looked_at.append(at)
        return look(value, at)

    monkeypatch.setattr(encapsulated, "_fragment", counted)
    monkeypatch.setattr(pixels.pydicom.filereader, "read_undefined_length_value", None)
    in_one_request = open_pixels(store, instance)
    found = [in_one_request.stored(number) for number in range(1, 1001)]
    in_many_requests = [open_pixels(store, instance).stored(number) for number in (1, 500, 1000)]

    assert found == frames
    assert in_many_requests == [frames[0], frames[499], frames[999]]
    assert len(looked_at) == 1000


def big_endian(**values: tuple[str, bytes]) -> bytes:
    """Return a data set in Explicit VR Big Endian."""
    dataset = Dataset()
    for keyword, (vr, value) in values.items():
        dataset.add_new(keyword, vr, value)
    file = DicomBytesIO()
    file.is_implicit_VR = file.is_little_endian = False
    write_dataset(file, dataset)
    return file.getvalue()


@pytest.mark.parametrize(
    ("vr", "stored", "sent"),
    [
        ("OW", b"\1\2\3\4", b"\2\1\4\3"),
        ("OF", b"\1\2\3\4", b"\4\3\2\1"),
        ("OL", b"\1\2\3\4", b"\4\3\2\1"),
        ("OD", b"\1\2\3\4\5\6\7\x08", b"\x08\7\6\5\4\3\2\1"),
        ("OV", b"\1\2\3\4\5\6\7\x08", b"\x08\7\6\5\4\3\2\1"),
        ("OB", b"\1\2\3\4", b"\1\2\3\4"),
    ],
)
def test_values_are_sent_little_endian_however_they_are_stored(
    store: FileInstanceStore, vr: str, stored: bytes, sent: bytes
) -> None:
    data_set = big_endian(
        RedPaletteColorLookupTableData=(vr, stored * 500),
        GreenPaletteColorLookupTableData=(vr, stored),
    )
    instance = kept(store, data_set, ExplicitVRBigEndian)

    value = value_at(read_dataset(store, instance), (0x00281201,), ExplicitVRBigEndian)
    [metadata] = json.loads(b"".join(metadata_of(store, [instance], "")))

    assert value == sent * 500
    assert metadata["00281201"] == {"vr": vr, "BulkDataURI": BULK_DATA + "/00281201"}
    assert base64.b64decode(metadata["00281202"]["InlineBinary"]) == sent


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4"])
def test_frames_are_sent_little_endian_however_they_are_stored(
    store: FileInstanceStore, kind: str, count: int
) -> None:
    values = np.random.default_rng(5).integers(0, 100, (count, 6, 8)).astype(kind)
    image = an_image(values, frames=True)
    image = with_cells(image, values, ExplicitVRBigEndian)
    instance = kept(store, b"", ExplicitVRBigEndian)
    store.put_artifact("instance", part10(image))

    read = open_pixels(store, instance)

    little = np.dtype(kind).newbyteorder("<")
    assert [read.stored(number + 1) for number in range(count)] == [
        each.astype(little).tobytes() for each in values
    ]
