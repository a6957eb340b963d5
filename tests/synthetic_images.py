"""Instances with pixels, drawn by the tests."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

STUDY_INSTANCE_UID = "2.25.101"
SERIES_INSTANCE_UID = "2.25.102"


def an_image(
    stored: npt.NDArray[Any],
    *,
    transfer_syntax_uid: UID = ExplicitVRLittleEndian,
    frames: bool = False,
    **attributes: Any,
) -> Dataset:
    """Make an instance whose native pixel data are these stored values.

    ``stored`` is [rows, columns], [rows, columns, 3], or with ``frames`` [frames, rows, columns].
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("2.25.103")
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = "2.25.103"
    dataset.StudyInstanceUID = STUDY_INSTANCE_UID
    dataset.SeriesInstanceUID = SERIES_INSTANCE_UID
    dataset.Modality = "CR"
    shape = stored.shape[1:] if frames else stored.shape
    if frames:
        dataset.NumberOfFrames = stored.shape[0]
    dataset.Rows, dataset.Columns = shape[:2]
    is_color = len(shape) == 3
    dataset.SamplesPerPixel = 3 if is_color else 1
    dataset.PhotometricInterpretation = "RGB" if is_color else "MONOCHROME2"
    if is_color:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    value = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = value + b"\0" * (len(value) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated <= 8 else "OW"
    if dataset["PixelData"].VR == "OW" and not transfer_syntax_uid.is_little_endian:
        # Words of 16 bits, whatever lies in them (PS3.5 §6.2).
        dataset.PixelData = np.frombuffer(dataset.PixelData, "u2").byteswap().tobytes()
    for keyword, attribute in attributes.items():
        setattr(dataset, keyword, attribute)
    return dataset


def part10(dataset: Dataset) -> bytes:
    """Return the instance as a Part 10 file."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(dataset: Dataset, path: Path) -> Path:
    """Write the instance as a Part 10 file and return where it is."""
    path.write_bytes(part10(dataset))
    return path


def read(content: bytes) -> Dataset:
    """Read a Part 10 file."""
    return pydicom.dcmread(BytesIO(content))


def a_gradient(rows: int = 32, columns: int = 48, *, low: int = 0, high: int = 4095) -> Any:
    """Return values that rise from the top left to the bottom right, each at least once."""
    return np.linspace(low, high, rows * columns).round().reshape(rows, columns)
