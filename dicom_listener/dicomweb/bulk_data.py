"""Values out of an instance: frames of its pixel data, and any large value by its path."""

from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from typing import Any

import pydicom
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian

from dicom_listener.dicomweb.dicom_json import Path
from dicom_listener.dicomweb.media_types import OCTET_STREAM
from dicom_listener.dicomweb.retrieval import AT_WORK, Instance
from dicom_listener.sop_classes import DEFLATED
from imaging_pixels.decode import UndecodablePixels, decode, frame_count
from imaging_pixels.encapsulated import Content, coded_frame
from imaging_pixels.inflation import check_inflated_size
from imaging_store.instances import FileInstanceStore

PIXEL_DATA = 0x7FE00010

_DEFERRED_BYTES = 64 * 1024
_COMPRESSED = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Media types of compressed frames (PS3.18 Table 8.7.3-2 and its like)."""


class NoSuchValue(Exception):
    """The instance has no such frame or value."""


def frame_media_type(transfer_syntax_uid: str) -> str:
    """Return the media type of a frame as it is stored."""
    if not UID(transfer_syntax_uid).is_encapsulated:
        return OCTET_STREAM
    return _COMPRESSED.get(transfer_syntax_uid, OCTET_STREAM)


class Pixels:
    """The frames of one instance, whose pixel data stays in its file as far as it can."""

    def __init__(self, dataset: Dataset, store: FileInstanceStore, instance: Instance) -> None:
        self.dataset = dataset
        self.count = frame_count(dataset)
        self._store = store
        self._instance = instance
        # What is taken out of the data set when one of its frames is decoded.
        self._element: Any = dataset.get_item(PIXEL_DATA, keep_deferred=True)
        tables = (dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths"))
        self._offsets = (tables[0], tables[1]) if tables[0] and tables[1] else None
        self._groups = dataset.get("PerFrameFunctionalGroupsSequence")

    def stored(self, number: int) -> bytes:
        """Return a frame, counted from 1, in the transfer syntax that it is stored in.

        Native frames are little endian and have each pixel in its cell, as Explicit VR Little
        Endian has them.

        Raises
        ------
        UndecodablePixels
            The pixel data is damaged where the frame should be.
        """
        transfer_syntax_uid = UID(self._instance.transfer_syntax_uid)
        if transfer_syntax_uid.is_encapsulated:
            return coded_frame(self._coded(), number - 1, self.count, self._offsets)
        size = self._native_size()
        if size is None or transfer_syntax_uid == ExplicitVRBigEndian:
            return self.uncompressed(number)
        return self._slice(size * (number - 1), size)

    def uncompressed(self, number: int) -> bytes:
        """Return a frame, counted from 1, as native little-endian pixels; color is RGB.

        Raises
        ------
        UndecodablePixels
            It cannot be decoded.
        """
        with AT_WORK:
            values = decode(*self.to_decode(number))
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()

    def require(self, numbers: Sequence[int]) -> None:
        """Pass where there are all these frames, counted from 1.

        Raises
        ------
        NoSuchValue
            One of them is not there.
        """
        if PIXEL_DATA not in self.dataset or not all(1 <= each <= self.count for each in numbers):
            raise NoSuchValue

    def to_decode(self, number: int) -> tuple[Dataset, int]:
        """Return a data set and which frame of it, counted from 0, is the one asked for.

        Of several frames the data set is left with that one alone, until the next is asked for: the
        others stay in the file.

        Raises
        ------
        UndecodablePixels
            The pixel data is damaged where the frame should be.
        """
        dataset, stored = self.dataset, UID(self._instance.transfer_syntax_uid)
        if self.count == 1:
            return dataset, number - 1
        if stored.is_encapsulated:
            vr, frame = "OB", encapsulate([self.stored(number)])
            for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
                dataset.pop(keyword, None)
        else:
            size = None if stored == ExplicitVRBigEndian else self._native_size()
            if size is None:
                return dataset, number - 1
            vr = getattr(self._element, "VR", None) or "OW"
            frame = self._slice(size * (number - 1), size)
        dataset[PIXEL_DATA] = DataElement(PIXEL_DATA, vr, frame)
        dataset.NumberOfFrames = 1
        if self._groups:
            dataset.PerFrameFunctionalGroupsSequence = self._groups[number - 1 : number]
        return dataset, 0

    def _native_size(self) -> int | None:
        """Return the bytes of a native frame; ``None`` where frames do not begin with a byte."""
        dataset = self.dataset
        try:
            cells = int(dataset.Rows) * int(dataset.Columns)
            samples = int(dataset.get("SamplesPerPixel") or 1)
            bits = cells * samples * int(dataset.BitsAllocated)
        except (AttributeError, TypeError, ValueError) as error:
            raise UndecodablePixels("the Image Pixel module is damaged") from error
        if bits % 8 or dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
            return None
        return bits // 8

    def _slice(self, start: int, size: int) -> bytes:
        raw = self._element
        if getattr(raw, "value", None) is not None:
            frame = bytes(raw.value[start : start + size])
        else:
            with self._store.open(self._instance.key) as file:
                file.seek(raw.value_tell + start)
                frame = file.read(min(size, max(0, raw.length - start)))
        if len(frame) < size:
            raise UndecodablePixels("the pixel data is truncated")
        return frame

    def _coded(self) -> Content:
        """Return the fragments, in their file where they are many: of them a frame is read."""
        raw = self._element
        if getattr(raw, "value", None) is not None:
            return bytes(raw.value)
        with self._store.open(self._instance.key) as file:
            whole = mmap(file.fileno(), 0, access=ACCESS_READ)
        return memoryview(whole)[raw.value_tell :]


def read_dataset(store: FileInstanceStore, instance: Instance) -> Dataset:
    """Read an instance; large values stay in their file until they are asked for.

    Raises
    ------
    NotInStore, UndecodablePixels
        It has been purged meanwhile; it cannot be parsed.
    """
    check_can_be_read(store, instance)
    # What is deflated stands nowhere in the file by itself.
    is_deflated = instance.transfer_syntax_uid in DEFLATED
    try:
        return pydicom.dcmread(
            store.path(instance.key), defer_size=None if is_deflated else _DEFERRED_BYTES
        )
    except Exception as error:
        raise UndecodablePixels("the data set cannot be parsed") from error


def check_can_be_read(store: FileInstanceStore, instance: Instance) -> None:
    """Pass where an instance is there and does not inflate to more than memory can hold.

    Raises
    ------
    NotInStore, UndecodablePixels
        It has been purged meanwhile; it inflates without end.
    """
    if instance.transfer_syntax_uid in DEFLATED:
        check_inflated_size(store.read(instance.key))
    else:
        store.open(instance.key).close()


def value_at(dataset: Dataset, path: Path) -> bytes:
    """Return the bytes of a value by its path: tags, and item numbers between them.

    Raises
    ------
    NoSuchValue
        There is none, or it is no bulk data.
    """
    *way, tag = path
    try:
        for place, item in zip(way[::2], way[1::2], strict=True):
            dataset = dataset[place].value[item]
        value = dataset[tag].value
    except Exception as error:
        raise NoSuchValue from error
    if not isinstance(value, bytes):
        raise NoSuchValue
    return value


def parse_path(text: str) -> Path:
    """Return the path that a BulkDataURI ends with: ``00081140/0/7FE00010``.

    Raises
    ------
    NoSuchValue
        It is none.
    """
    steps = text.split("/")
    try:
        if len(steps) % 2 == 0:
            raise NoSuchValue
        return tuple(
            int(step, 16) if position % 2 == 0 else int(step) for position, step in enumerate(steps)
        )
    except ValueError:
        raise NoSuchValue from None


def path_text(path: Path) -> str:
    """Return a path as a BulkDataURI ends with it."""
    return "/".join(
        f"{step:08X}" if position % 2 == 0 else str(step) for position, step in enumerate(path)
    )
