"""Studies that tests search for and retrieve by DICOMweb."""

from __future__ import annotations

from io import BytesIO

import httpx
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.integration.dicom_listener.listener import a_slice

FIRST = "2.25.4101"
SECOND = "2.25.4102"
THIRD = "2.25.4103"
PIXELS = bytes(range(128))
OHIF = {"limit": "101", "offset": "0", "fuzzymatching": "false"}


def slices() -> list[Dataset]:
    """Draw three studies: of one series of two and another of one; of one MR; of one CT."""
    about = {"StudyInstanceUID": FIRST, "PatientName": "Quill^Ada=鵞筆^阿陀", "PatientID": "Q1"}
    about |= {"AccessionNumber": "A_1", "StudyDescription": "Thorax", "StudyID": "S1"}
    about |= {"ReferringPhysicianName": "Rei^Erin", "TimezoneOffsetFromUTC": "+0200"}
    lung = {"SeriesInstanceUID": f"{FIRST}.1", "SeriesNumber": 2, "SeriesDescription": "Lung"}
    bone = {"SeriesInstanceUID": f"{FIRST}.2", "SeriesNumber": 3, "SeriesDescription": "Bone"}
    window = {"WindowCenter": "100", "WindowWidth": "50"}
    return [
        a_slice(**about, **lung, **window, InstanceNumber=1, SOPInstanceUID=f"{FIRST}.1.1"),
        a_slice(**about, **lung, InstanceNumber=2, SOPInstanceUID=f"{FIRST}.1.2"),
        a_slice(**about, **bone, InstanceNumber=1, SOPInstanceUID=f"{FIRST}.2.1"),
        a_slice(
            StudyInstanceUID=SECOND,
            SOPInstanceUID=f"{SECOND}.1",
            StudyDate="20260705",
            StudyTime="",
            Modality="MR",
            PatientID="Q%2",
            PatientName="Quilt^Bea",
        ),
        a_slice(
            StudyInstanceUID=THIRD,
            SOPInstanceUID=f"{THIRD}.1",
            StudyDate="20260801",
            StudyTime="081500",
            PatientID="Z9",
            PatientName="Zorn",
            SpecificCharacterSet="ISO_IR 144",
            StudyDescription="Грудь",
        ),
    ]


def file_of(ds: Dataset, **meta: str) -> bytes:
    """Return a Part 10 file, as other software writes it."""
    ds.preamble, ds.file_meta = bytes(128), FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.ImplementationClassUID = "1.2.3"
    for keyword, value in meta.items():
        setattr(ds.file_meta, keyword, value)
    file = BytesIO()
    dcmwrite(file, ds, enforce_file_format=False)
    return file.getvalue()


def studies_of(answer: httpx.Response) -> list[str]:
    """Return the Study Instance UIDs that an answer lists."""
    assert answer.status_code in {200, 204}, answer.text
    found = answer.json() if answer.status_code == 200 else []
    return [item["0020000D"]["Value"][0] for item in found]
