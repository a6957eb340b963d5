import zlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from dicom_listener import instance_header
from dicom_listener.instance_header import (
    InstanceHeader,
    NotUnderstood,
    SharedHeader,
    parse_header,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
CT = "1.2.840.10008.5.1.4.1.1.2"


def a_slice() -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "1.2.3.4"
    ds.StudyDate, ds.StudyTime, ds.TimezoneOffsetFromUTC = "20260704", "120000", "+0200"
    ds.AccessionNumber, ds.Modality, ds.InstitutionName = "A1", "CT", "Klinik"
    ds.ReferringPhysicianName, ds.StudyDescription = "Rei^Erin", "Thorax"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = "Wang^XiaoDong=王^小東", "P1", "HOSPITAL"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "F"
    ds.PatientAge = "056Y"
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.StudyID = "1.2.3", "1.2.3.1", "S1"
    ds.InstanceNumber, ds.ImageLaterality, ds.NumberOfFrames = 3, "L", 2
    device = Dataset()
    device.Manufacturer, device.DeviceUID = "Us", "2.25.7"
    ds.ContributingEquipmentSequence = Sequence([device])
    ds.Rows, ds.Columns = 4, 5
    ds.SeriesNumber, ds.SeriesDescription = 5, "Lunge"
    ds.BitsAllocated = 16
    ds.PixelData = bytes(80)
    ds["PixelData"].VR = "OW"
    return ds


def encoded(ds: Dataset, transfer_syntax_uid: str = EXPLICIT) -> bytes:
    file = DicomBytesIO()
    file.is_implicit_VR = transfer_syntax_uid == IMPLICIT
    file.is_little_endian = transfer_syntax_uid != BIG
    write_dataset(file, ds)
    data: bytes = file.getvalue()
    if transfer_syntax_uid == DEFLATED:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflate.compress(data) + deflate.flush()
    return data


def header_of(ds: Dataset, transfer_syntax_uid: str = EXPLICIT) -> InstanceHeader:
    header = parse_header(BytesIO(encoded(ds, transfer_syntax_uid)), transfer_syntax_uid)
    assert header is not None
    return header


@pytest.mark.parametrize("transfer_syntax_uid", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
def test_every_encoding_says_the_same(transfer_syntax_uid: str) -> None:
    assert header_of(a_slice(), transfer_syntax_uid) == InstanceHeader(
        shared=SharedHeader(
            study_instance_uid="1.2.3",
            series_instance_uid="1.2.3.1",
            sop_class_uid=CT,
            modality="CT",
            body_part_examined="CHEST",
            view_position="PA",
            laterality="L",
            image_type=("ORIGINAL", "PRIMARY"),
            number_of_frames=2,
            series_number=5,
            series_description="Lunge",
            rows=4,
            columns=5,
            patient_id="P1",
            issuer_of_patient_id="HOSPITAL",
            patient_name="Wang^XiaoDong=王^小東",
            patient_birth_date="19700101",
            patient_sex="F",
            patient_age="056Y",
            accession_number="A1",
            study_id="S1",
            study_description="Thorax",
            referring_physician_name="Rei^Erin",
            institution_name="Klinik",
            study_date="20260704",
            study_time="120000",
            timezone_offset="+0200",
            is_image=True,
        ),
        sop_instance_uid="1.2.3.4",
        view_code="",
        instance_number=3,
        contributing_device_uids=frozenset({"2.25.7"}),
    )


@pytest.mark.parametrize("is_undefined_length", [True, False])
def test_contributing_devices_are_found_in_both_kinds_of_sequence(
    is_undefined_length: bool,
) -> None:
    ds = a_slice()
    ds["ContributingEquipmentSequence"].is_undefined_length = is_undefined_length

    assert header_of(ds).contributing_device_uids == {"2.25.7"}


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("StudyInstanceUID", "Study Instance UID"),
        ("SeriesInstanceUID", "Series Instance UID"),
        ("SOPInstanceUID", "SOP Instance UID"),
        ("SOPClassUID", "SOP Class UID"),
    ],
)
def test_what_does_not_say_what_it_is_is_not_understood(keyword: str, name: str) -> None:
    ds = a_slice()
    del ds[keyword]

    with pytest.raises(NotUnderstood, match=f"{name} is missing"):
        header_of(ds)


def test_a_uid_that_cannot_be_one_is_malformed() -> None:
    data = encoded(a_slice()).replace(b"1.2.3.4\0", b"1.2 3.4\0")

    with pytest.raises(NotUnderstood, match="SOP Instance UID is malformed"):
        parse_header(BytesIO(data), EXPLICIT)


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_without_a_size_it_is_no_image(keyword: str) -> None:
    ds = a_slice()
    del ds[keyword]

    assert not header_of(ds).shared.is_image


def test_a_segmentation_is_no_image_to_read() -> None:
    ds = a_slice()
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.66.4", "SEG"

    assert not header_of(ds).shared.is_image


def test_truncated_pixels_do_not_matter() -> None:
    data = encoded(a_slice())[:-40]

    header = parse_header(BytesIO(data), EXPLICIT)

    assert header is not None
    assert header.shared.is_image


def test_a_header_that_breaks_behind_its_uids_is_kept() -> None:
    data = encoded(a_slice())
    after_uids = data.index(b"\x20\x00\x10\x00SH")

    header = parse_header(BytesIO(data[:after_uids] + b"\xff" * 40), EXPLICIT)

    assert header is not None
    assert header.study_instance_uid == "1.2.3"


@given(
    end=st.integers(0, len(encoded(a_slice()))),
    transfer_syntax_uid=st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED]),
)
def test_a_prefix_says_the_same_as_the_whole_or_asks_for_more(
    end: int, transfer_syntax_uid: str
) -> None:
    prefix = encoded(a_slice(), transfer_syntax_uid)[:end]

    header = parse_header(BytesIO(prefix), transfer_syntax_uid, whole=False)

    assert header in (None, header_of(a_slice(), transfer_syntax_uid))


@given(
    data=st.binary(max_size=300),
    transfer_syntax_uid=st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED]),
)
def test_any_bytes_are_understood_or_not(data: bytes, transfer_syntax_uid: str) -> None:
    with pytest.raises(NotUnderstood):
        parse_header(BytesIO(data), transfer_syntax_uid)


@given(data=st.data())
def test_any_damage_is_understood_or_not(data: st.DataObject) -> None:
    whole = bytearray(encoded(a_slice()))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    try:
        header = parse_header(BytesIO(bytes(whole)), EXPLICIT)
    except NotUnderstood:
        return

    assert header is not None
    assert header.study_instance_uid
    header.shared.patient_name.encode()


def test_a_long_header_is_read_and_not_remembered() -> None:
    ds = a_slice()
    ds.StudyDescription = "x" * 20_000
    instance_header._shared.cache_clear()

    headers = [header_of(ds) for _ in range(2)]

    assert {header.shared.study_description for header in headers} == {"x" * 20_000}
    assert instance_header._shared.cache_info().currsize == 0


def a_radiograph(code_value: str, *, modality: str = "DX") -> Dataset:
    ds = a_slice()
    ds.Modality = modality
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = code_value, "SCT", "a view"
    ds.ViewCodeSequence = [code]
    return ds


@pytest.mark.parametrize("transfer_syntax_uid", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("is_undefined_length", [True, False])
def test_the_coded_view_of_a_radiograph_is_found(
    transfer_syntax_uid: str, is_undefined_length: bool
) -> None:
    ds = a_radiograph("399173006")
    ds["ViewCodeSequence"].is_undefined_length = is_undefined_length

    header = header_of(ds, transfer_syntax_uid)

    assert header.view_code == "LL"
    other = header_of(a_slice(), transfer_syntax_uid)
    assert header == other._replace(shared=other.shared._replace(modality="DX"), view_code="LL")


def test_a_coded_view_that_is_not_known_tells_nothing() -> None:
    assert header_of(a_radiograph("no such code")).view_code == ""


def test_what_is_behind_the_last_element_of_other_pictures_is_not_waited_for() -> None:
    assert header_of(a_radiograph("399173006", modality="CT")).view_code == ""


def test_a_coded_view_behind_the_prefix_is_waited_for() -> None:
    ds = a_radiograph("399173006")
    data = encoded(ds, EXPLICIT)
    cut = data.index(b"a view")

    assert parse_header(BytesIO(data[:cut]), EXPLICIT, whole=False) is None
