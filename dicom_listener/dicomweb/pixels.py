"""The frames of an instance: as they are stored, or decoded (PS3.18 §8.7.3)."""

from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, cast

import pydicom
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from dicom_listener.dicomweb.bulk_data import DEFERRED_BYTES, PIXEL_DATA, NoSuchValue, read_dataset
from dicom_listener.dicomweb.media_types import OCTET_STREAM
from dicom_listener.dicomweb.memory import Memory
from dicom_listener.dicomweb.retrieval import Instance
from dicom_listener.sop_classes import BIG_ENDIAN
from imaging_pixels.decode import UndecodablePixels, decode, frame_count
from imaging_pixels.encapsulated import CodedFrames, Fragments, find_fragments
from imaging_store.instances import FileInstanceStore

_TAG, _UNDEFINED_LENGTH = b"\xe0\x7f\x10\x00", b"\xff\xff\xff\xff"
_ELEMENT_HEAD_BYTES = 12
_KNOWN_INSTANCES = 8
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


def frame_media_type(transfer_syntax_uid: str) -> str:
    """Return the media type of a frame as it is stored."""
    if not UID(transfer_syntax_uid).is_encapsulated:
        return OCTET_STREAM
    return _COMPRESSED.get(transfer_syntax_uid, OCTET_STREAM)


class Pixels:
    """The frames of one instance, whose pixel data stays in its file as far as it can.

    ``start`` is where the value of its compressed pixel data begins in the file, where the data set
    was read only as far as that.
    """

    def __init__(
        self,
        dataset: Dataset,
        store: FileInstanceStore,
        instance: Instance,
        start: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.count = frame_count(dataset)
        self._store = store
        self._instance = instance
        # What is taken out of the data set when one of its frames is decoded.
        self._element = cast(Any, dataset.get_item(PIXEL_DATA, keep_deferred=True))
        if start is None and getattr(self._element, "value", b"") is None:
            start = self._element.value_tell
        self._start = start
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
        if UID(self._instance.transfer_syntax_uid).is_encapsulated:
            return self._coded.frame(number - 1)
        size = self._native_size()
        return self.uncompressed(number) if size is None else self._slice(size, number)

    def uncompressed(self, number: int) -> bytes:
        """Return a frame, counted from 1, as native little-endian pixels; color is RGB.

        Raises
        ------
        UndecodablePixels
            It cannot be decoded.
        """
        values = decode(*self.to_decode(number))
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()

    @property
    def is_stored_as_sent(self) -> bool:
        """Whether to send a frame as it is stored is to read it, without a look at its pixels."""
        is_encapsulated: bool = UID(self._instance.transfer_syntax_uid).is_encapsulated
        return is_encapsulated or self._native_size() is not None

    def require(self, numbers: Sequence[int]) -> None:
        """Pass where there are all these frames, counted from 1.

        Raises
        ------
        NoSuchValue
            One of them is not there.
        """
        is_there = self._element is not None or self._start is not None
        if not is_there or not all(1 <= each <= self.count for each in numbers):
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
        dataset = self.dataset
        if self.count == 1:
            return dataset, number - 1
        if UID(self._instance.transfer_syntax_uid).is_encapsulated:
            vr, frame = "OB", encapsulate([self.stored(number)])
            for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
                dataset.pop(keyword, None)
        else:
            size = self._native_size()
            if size is None:
                return dataset, number - 1
            vr = getattr(self._element, "VR", None) or "OW"
            frame = self._slice(size, number)
        dataset[PIXEL_DATA] = DataElement(PIXEL_DATA, vr, frame)
        dataset.NumberOfFrames = 1
        if self._groups:
            dataset.PerFrameFunctionalGroupsSequence = self._groups[number - 1 : number]
        return dataset, 0

    def _native_size(self) -> int | None:
        """Return the bytes of a native frame; ``None`` where they are not to be had as they are.

        Frames may begin within a byte, share their colors, or be big endian.
        """
        dataset = self.dataset
        try:
            cells = int(dataset.Rows) * int(dataset.Columns)
            samples = int(dataset.get("SamplesPerPixel") or 1)
            bits = cells * samples * int(dataset.BitsAllocated)
        except (AttributeError, TypeError, ValueError) as error:
            raise UndecodablePixels("the Image Pixel module is damaged") from error
        if bits % 8 or dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
            return None
        return None if self._instance.transfer_syntax_uid in BIG_ENDIAN else bits // 8

    def _slice(self, size: int, number: int) -> bytes:
        raw, start = self._element, size * (number - 1)
        if getattr(raw, "value", None) is not None:
            frame = bytes(raw.value[start : start + size])
        else:
            with self._store.open(self._instance.key) as file:
                file.seek(raw.value_tell + start)
                frame = file.read(min(size, max(0, raw.length - start)))
        if len(frame) < size:
            raise UndecodablePixels("the pixel data is truncated")
        return frame

    @cached_property
    def _coded(self) -> CodedFrames:
        """The compressed frames, in their file where they are many: of them one is read."""
        if self._start is None:
            return CodedFrames(bytes(self._element.value), self.count, self._offsets)
        self._store.open(self._instance.key).close()
        path = self._store.path(self._instance.key)
        find = partial(_fragments_in, path, self._start, self.count)
        return CodedFrames(_view(path, self._start), self.count, self._offsets, find)


def open_pixels(
    store: FileInstanceStore, instance: Instance, memory: Memory | None = None
) -> Pixels:
    """Read an instance whose frames are asked for; of many compressed ones none is read yet.

    Raises
    ------
    NotInStore, UndecodablePixels, OutOfMemory
        As :func:`dicom_listener.dicomweb.bulk_data.read_dataset`.
    """
    if UID(instance.transfer_syntax_uid).is_encapsulated:
        with store.open(instance.key) as file:
            try:
                dataset = pydicom.dcmread(file, defer_size=DEFERRED_BYTES, stop_before_pixels=True)
            except Exception as error:
                raise UndecodablePixels("the data set cannot be parsed") from error
            head = file.read(_ELEMENT_HEAD_BYTES)
            start = file.tell()
        # To find the end of compressed pixel data is to read all of it.
        if frame_count(dataset) > 1 and _is_compressed_pixel_data(head):
            return Pixels(dataset, store, instance, start)
    return Pixels(read_dataset(store, instance, memory), store, instance)


def _is_compressed_pixel_data(head: bytes) -> bool:
    return head.startswith(_TAG) and head.endswith(_UNDEFINED_LENGTH)


def _view(path: Path, start: int) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))[start:]


@lru_cache(maxsize=_KNOWN_INSTANCES)
def _fragments_in(path: Path, start: int, frames: int) -> Fragments:
    """Return where the fragments of a file are: viewers ask for one of its frames after another.

    What is kept under a key never changes.
    """
    return find_fragments(_view(path, start), frames)
