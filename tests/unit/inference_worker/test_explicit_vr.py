"""What we write is what pydicom writes, byte for byte."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from inference_worker import secondary_capture, structured_report
from inference_worker.explicit_vr import part10_of
from tests.readings import a_reading
from tests.synthetic_images import an_image, read


def as_pydicom_writes_it(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def an_object(**attributes: Any) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.FileMetaInformationVersion = b"\0\1"
    made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationClassUID = "2.25.99"
    made.file_meta.ImplementationVersionName = "TESTS"
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = "2.25.1"
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def with_values_read(content: bytes) -> Dataset:
    """Read an object such that nothing of it is written as it was read."""
    dataset = read(content)
    for _ in (*dataset.file_meta.iterall(), *dataset.iterall()):
        pass
    return dataset


@pytest.mark.parametrize("frames", [1, 3])
def test_results_are_written_as_pydicom_writes_them(frames: int) -> None:
    stored = np.zeros((frames, 9, 7), np.uint8) if frames > 1 else np.zeros((9, 7), np.uint8)
    source = an_image(
        stored,
        frames=frames > 1,
        PatientName="Łukasiewicz^Ñandú=山田^太郎",
        PatientID="P-1",
        PatientSize="1.80",
        PatientWeight="72.50",
        OtherPatientNames=["A^B", "C"],
        SpecificCharacterSet="ISO_IR 192",
    )
    overlay = np.full((13, 11, 3), 7, np.uint8)

    results = [
        secondary_capture.make(source, overlay, a_reading()),
        structured_report.make([source], a_reading(), [tuple(range(frames))], [(source, 0)]),
    ]

    for each in results:
        assert each.content == as_pydicom_writes_it(with_values_read(each.content))


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",), exclude_characters="\\=^"))


@given(
    name=words.map(lambda text: text[:60].strip()),
    texts=st.lists(words.map(lambda text: text[:60].strip()).filter(bool), max_size=3),
    number=st.floats(-1e6, 1e6)
    .map(lambda value: f"{value:.6g}")
    .filter(lambda text: math.isfinite(float(text))),
    pixels=st.binary(max_size=9),
)
def test_whatever_the_values_the_bytes_are_pydicoms(
    name: str, texts: list[str], number: str, pixels: bytes
) -> None:
    item = Dataset()
    item.CodeMeaning = name[:16]
    item.ReferencedFrameNumber = [1, 22, 333]
    made = an_object(
        PatientName=name,
        StudyDescription=texts[0] if texts else None,
        OtherPatientNames=texts,
        PatientWeight=number,
        LossyImageCompressionRatio=[number, "10"],
        Rows=7,
        SourceImageSequence=[item, Dataset()],
        DerivationCodeSequence=[],
        ImageComments=name,
        InstanceNumber=1,
        FrameIncrementPointer=0x00181063,
        RecommendedDisplayFrameRateInFloat=1.5,
    )
    made.PixelData = pixels
    made["PixelData"].VR = "OB"

    assert part10_of(made) == as_pydicom_writes_it(made)


def test_other_encodings_are_refused() -> None:
    made = an_object()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    with pytest.raises(ValueError, match="Explicit VR Little Endian"):
        part10_of(made)
