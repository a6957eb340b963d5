"""Values out of an instance, by their path, and the data set that they are in."""

import weakref

import pydicom
from pydicom import Dataset

from dicom_listener.dicomweb.dicom_json import Path
from dicom_listener.dicomweb.memory import Memory
from dicom_listener.dicomweb.retrieval import MOST_INFLATED_BYTES, Instance
from dicom_listener.sop_classes import BIG_ENDIAN, DEFLATED
from imaging_pixels.byte_order import from_big_endian
from imaging_pixels.decode import UndecodablePixels
from imaging_pixels.inflation import check_inflated_size
from imaging_store.instances import FileInstanceStore

PIXEL_DATA = 0x7FE00010
DEFERRED_BYTES = 64 * 1024
"""Longer values stay in their file until they are asked for."""


class NoSuchValue(Exception):
    """The instance has no such frame or value."""


def read_dataset(
    store: FileInstanceStore, instance: Instance, memory: Memory | None = None
) -> Dataset:
    """Read an instance; large values stay in their file until they are asked for.

    Where ``memory`` is given, a deflated data set counts against it for as long as it lives.

    Raises
    ------
    NotInStore, UndecodablePixels
        It has been purged meanwhile; it cannot be parsed, or inflates to too much.
    OutOfMemory
        There is no room for it while others are being sent.
    """
    inflated_bytes = check_can_be_read(store, instance)
    taken = memory.take(inflated_bytes) if memory is not None and inflated_bytes else None
    # What is deflated stands nowhere in the file by itself.
    is_deflated = instance.transfer_syntax_uid in DEFLATED
    try:
        dataset = pydicom.dcmread(
            store.path(instance.key), defer_size=None if is_deflated else DEFERRED_BYTES
        )
    except Exception as error:
        if taken is not None:
            taken()
        raise UndecodablePixels("the data set cannot be parsed") from error
    if taken is not None:
        weakref.finalize(dataset, taken)
    return dataset


def check_can_be_read(store: FileInstanceStore, instance: Instance) -> int:
    """Pass where an instance is there, and return the bytes that it inflates to; else 0.

    Raises
    ------
    NotInStore, UndecodablePixels
        It has been purged meanwhile; it inflates to too much.
    """
    if instance.transfer_syntax_uid in DEFLATED:
        return check_inflated_size(store.read(instance.key), MOST_INFLATED_BYTES)
    store.open(instance.key).close()
    return 0


def value_at(dataset: Dataset, path: Path, transfer_syntax_uid: str) -> bytes:
    """Return the bytes of a value by its path: tags, and item numbers between them.

    They are little endian, however they are stored (PS3.18 §8.7.3.5.2).

    Raises
    ------
    NoSuchValue
        There is none, or it is no bulk data.
    """
    *way, tag = path
    try:
        for place, item in zip(way[::2], way[1::2], strict=True):
            dataset = dataset[place].value[item]
        element = dataset[tag]
        value = element.value
    except Exception as error:
        raise NoSuchValue from error
    if not isinstance(value, bytes):
        raise NoSuchValue
    return from_big_endian(value, element.VR) if transfer_syntax_uid in BIG_ENDIAN else value


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
