from io import BytesIO
from zlib import compressobj

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicom_listener.key_object_selection import rejected_studies


def an_item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def a_selection(code: str, *studies: str, scheme: str = "DCM") -> Dataset:
    return an_item(
        StudyInstanceUID="1.2.3",
        ConceptNameCodeSequence=Sequence([an_item(CodeValue=code, CodingSchemeDesignator=scheme)]),
        CurrentRequestedProcedureEvidenceSequence=Sequence(
            [an_item(StudyInstanceUID=uid) for uid in studies]
        ),
        ContentSequence=Sequence([an_item(RelationshipType="CONTAINS", ValueType="IMAGE")]),
    )


def encoded(ds: Dataset) -> bytes:
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    write_dataset(file, ds)
    return file.getvalue()


def rejected(ds: Dataset) -> tuple[str, ...]:
    return rejected_studies(BytesIO(encoded(ds)), ExplicitVRLittleEndian)


@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_a_selection_whose_title_is_a_rejection_rejects(code: str) -> None:
    assert rejected(a_selection(code, "1.2.3")) == ("1.2.3",)


@pytest.mark.parametrize(("code", "scheme"), [("113000", "DCM"), ("113001", "99LOCAL")])
def test_any_other_selection_rejects_nothing(code: str, scheme: str) -> None:
    assert rejected(a_selection(code, "1.2.3", scheme=scheme)) == ()


def test_what_is_rejected_may_be_of_other_studies() -> None:
    assert rejected(a_selection("113001", "1.2.4", "1.2.5", "1.2.4")) == ("1.2.4", "1.2.5")


def test_a_rejection_that_does_not_say_of_what_is_about_its_own_study() -> None:
    assert rejected(a_selection("113038")) == ("1.2.3",)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_no_uid_is_passed_over() -> None:
    assert rejected(a_selection("113001", "1 2", "1.2\0003", "1.2.5")) == ("1.2.5",)


def test_a_deflated_selection_is_read() -> None:
    deflate = compressobj(wbits=-15)
    data = deflate.compress(encoded(a_selection("113001", "1.2.4"))) + deflate.flush()

    assert rejected_studies(BytesIO(data), DeflatedExplicitVRLittleEndian) == ("1.2.4",)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_document_stops_the_reader(noise: bytes, place: int) -> None:
    data = encoded(a_selection("113001", "1.2.4"))

    rejected_studies(BytesIO(data[:place] + noise + data[place:]), ExplicitVRLittleEndian)
