"""Synthetic instances to send: distinct, uncompressed, as heavy as real ones."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation
from pydicom.uid import ExplicitVRLittleEndian as TRANSFER_SYNTAX  # noqa: N814 - one for all


@dataclass(frozen=True)
class Kind:
    """What is sent."""

    name: str
    sop_class_uid: str
    modality: str
    side: int
    """Rows and columns, of 16 bits a pixel."""


CT = Kind("512x512 16-bit CT", CTImageStorage, "CT", 512)
DX = Kind("2,500x2,500 16-bit DX", DigitalXRayImageStorageForPresentation, "DX", 2500)


def draw(kind: Kind, folder: Path, count: int, parts: int, series: int = 0) -> list[Path]:
    """Draw ``count`` distinct instances into ``parts`` folders, each a study of its own."""
    folders = [folder / f"part{part:02}" for part in range(parts)]
    pixels = np.random.default_rng(1).integers(0, 4096, (kind.side, kind.side), dtype=np.uint16)
    for each in folders:
        each.mkdir(parents=True)
    root = f"2.25.{os.getpid()}.{kind.side}.{series}"
    for number in range(count):
        part = number % parts
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = kind.sop_class_uid, f"{root}.1.{number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{root}.2.{part}", f"{root}.3.{part}"
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20260704", "101500", f"A{part}"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Bench^Ingest", "BENCH", "19700101"
        ds.PatientSex, ds.StudyID, ds.Modality = "O", "1", kind.modality
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.BodyPartExamined, ds.InstanceNumber = "CHEST", number
        ds.Rows = ds.Columns = kind.side
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelRepresentation = 0
        ds.add_new("PixelData", "OW", np.roll(pixels, number).tobytes())
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = TRANSFER_SYNTAX
        ds.save_as(folders[part] / f"{number:05}.dcm", enforce_file_format=True)
    return folders


def size_bytes(folders: list[Path]) -> int:
    """Bytes of all instances."""
    return sum(path.stat().st_size for folder in folders for path in folder.iterdir())
