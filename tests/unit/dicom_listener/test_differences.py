"""What differs between two data sets of one SOP Instance UID."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_listener.differences import Difference, Kind, compare, equal_pixels, text_of

CT = "1.2.840.10008.5.1.4.1.1.2"
NATIVE = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def a_slice(**changes: object) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Müller^Jane", "P1", "19700101"
    ds.AccessionNumber, ds.StudyDescription = "A1", "Thorax ä"
    ds.ReferringPhysicianName = ""
    request = Dataset()
    request.RequestedProcedureID, request.RequestedProcedureDescription = "R1", "Größe"
    ds.RequestAttributesSequence = [request]
    ds.PixelSpacing, ds.RescaleSlope, ds.InstanceNumber = ["0.50", "0.5"], "1", "1"
    ds.ImagePositionPatient = ["1e1", "0", "-5"]
    ds.add_new("SmallestImagePixelValue", "US", 3)
    block = ds.private_block(0x0029, "MAKER", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "FD", 2.5)
    ds.Rows = ds.Columns = 64
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.add_new("PixelData", "OW", np.arange(4096, dtype="<u2").tobytes())
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def in_color(**changes: object) -> Dataset:
    ds = a_slice(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.add_new("PixelData", "OB", bytes(range(256)) * 48)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def as_file(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> Dataset:
    """Write and read again: what is compared lies in the store."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if transfer_syntax_uid in (JPEG2000Lossless, JPEGLSLossless, RLELossless):
        ds.compress(transfer_syntax_uid, generate_instance_uid=False)
    elif transfer_syntax_uid == ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = transfer_syntax_uid
    file = BytesIO()
    ds.preamble = bytes(128)
    ds.save_as(file)
    file.seek(0)
    return dcmread(file)


def difference(first: Dataset, second: Dataset) -> Difference:
    return compare(first, second, pixels_are_equal=lambda: equal_pixels(first, second))


@pytest.mark.parametrize("one", NATIVE)
@pytest.mark.parametrize("other", NATIVE)
def test_another_native_transfer_syntax_is_encoding_only(one: str, other: str) -> None:
    assert difference(as_file(a_slice(), one), as_file(a_slice(), other)) == Difference(
        Kind.ENCODING, ()
    )


@pytest.mark.parametrize("coded", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize("draw", [a_slice, in_color])
def test_lossless_compression_is_encoding_only(coded: str, draw: Callable[[], Dataset]) -> None:
    found = difference(as_file(draw()), as_file(draw(), coded))

    assert found == Difference(Kind.ENCODING, ())


def test_compressed_pixels_that_differ_are_content() -> None:
    other = a_slice(PixelData=bytes(8192))

    found = difference(as_file(a_slice()), as_file(other, RLELossless))

    assert found == Difference(Kind.CONTENT, ("PixelData",))


def test_another_character_set_is_encoding_only() -> None:
    other = a_slice(SpecificCharacterSet="ISO_IR 192")

    assert difference(as_file(a_slice()), as_file(other)).kind is Kind.ENCODING


def empties(ds: Dataset) -> None:
    ds.ConsultingPhysicianName = ""
    del ds.ReferringPhysicianName


def padding(ds: Dataset) -> None:
    ds.PatientName = "Müller^Jane^^^"
    ds.PatientID = " P1 "
    ds.add_new(0xFFFCFFFC, "OB", bytes(64))


def numbers(ds: Dataset) -> None:
    ds.PixelSpacing, ds.RescaleSlope = ["0.5", "0.500"], "1.0"
    ds.ImagePositionPatient = ["10", "0.0", "-5.0"]


def one_frame(ds: Dataset) -> None:
    ds.NumberOfFrames = "1"


@pytest.mark.parametrize("change", [empties, padding, numbers, one_frame])
def test_these_say_the_same(change: Callable[[Dataset], None]) -> None:
    other = a_slice()
    change(other)

    assert difference(as_file(a_slice()), as_file(other)) == Difference(Kind.ENCODING, ())


@pytest.mark.parametrize(
    "keyword", ["PatientName", "PatientID", "AccessionNumber", "StudyDescription", "AdmissionID"]
)
def test_attributes_of_patient_and_order_are_an_update(keyword: str) -> None:
    other = a_slice(**{keyword: "Other"})

    found = difference(as_file(a_slice()), as_file(other))

    assert found == Difference(Kind.ATTRIBUTES, (keyword,))


def test_what_was_requested_is_an_update() -> None:
    other = a_slice()
    other.RequestAttributesSequence[0].RequestedProcedureID = "R2"

    found = difference(as_file(a_slice()), as_file(other))

    assert found == Difference(Kind.ATTRIBUTES, ("RequestAttributesSequence",))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", ["0.6", "0.5"]),
        ("ImagePositionPatient", ["10", "0", "-6"]),
        ("SeriesInstanceUID", "1.2.3.2"),
        ("StudyInstanceUID", "1.2.4"),
        ("RescaleSlope", "2"),
        ("Laterality", "L"),
        ("PhotometricInterpretation", "MONOCHROME1"),
        ("SmallestImagePixelValue", 4),
        ("BodyPartExamined", "CHEST"),
    ],
)
def test_anything_else_is_content(keyword: str, value: object) -> None:
    other = a_slice(**{keyword: value, "PatientName": "Roe^Richard"})

    found = difference(as_file(a_slice()), as_file(other))

    assert found.kind is Kind.CONTENT
    assert set(found.keywords) == {keyword, "PatientName"}


def test_a_private_attribute_is_content() -> None:
    other = a_slice()
    other[0x0029, 0x1001].value = "else"

    found = difference(as_file(a_slice()), as_file(other))

    assert found == Difference(Kind.CONTENT, ("(0029,1001)",))


def test_pixels_that_cannot_be_decoded_are_compared_by_their_bytes() -> None:
    one, other = a_slice(PixelData=bytes(20)), a_slice(PixelData=bytes(20))
    third = a_slice(PixelData=b"\1" * 20)

    assert difference(as_file(one), as_file(other)).kind is Kind.ENCODING
    assert difference(as_file(one), as_file(third)) == Difference(Kind.CONTENT, ("PixelData",))


def test_pixels_on_one_side_only_are_content() -> None:
    other = a_slice()
    del other.PixelData

    assert difference(as_file(a_slice()), as_file(other)).kind is Kind.CONTENT


def test_an_empty_attribute_may_claim_a_vr_that_there_is_not() -> None:
    file = BytesIO()
    as_file(a_slice()).save_as(file)
    empty = b"\x08\x00\x90\x00%b\0\0"
    assert empty % b"PN" in file.getvalue()
    other = dcmread(BytesIO(file.getvalue().replace(empty % b"PN", empty % b"AW")))

    assert difference(as_file(a_slice()), other) == Difference(Kind.ENCODING, ())


def test_text_is_read_decoded() -> None:
    assert text_of(as_file(a_slice()), "PatientName") == "Müller^Jane"
    assert text_of(as_file(a_slice()), "RequestAttributesSequence") == ""
    assert text_of(as_file(a_slice()), "Allergies") == ""


@settings(max_examples=60)
@given(st.binary(max_size=400), st.integers(0, 900))
def test_whatever_the_bytes_are_they_can_be_compared(noise: bytes, at: int) -> None:
    good = BytesIO()
    as_good = as_file(a_slice())
    as_good.save_as(good)
    content = bytearray(good.getvalue())
    content[300 + at : 300 + at + len(noise)] = noise
    try:
        damaged = dcmread(BytesIO(bytes(content)), force=True)
    except Exception:  # noqa: BLE001 - what cannot be parsed is told elsewhere
        return
    damaged.file_meta = as_good.file_meta

    found = difference(as_file(a_slice()), damaged)

    assert found.kind in Kind
