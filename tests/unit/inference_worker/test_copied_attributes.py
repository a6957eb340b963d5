from __future__ import annotations

from datetime import timedelta
from io import BytesIO
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.data import get_charset_files
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from inference_worker.copied_attributes import (
    Copied,
    copy_patient_and_study,
    time_zone_of,
    valid_values,
)
from tests.synthetic_images import a_gradient, an_image

TYPE_2 = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
]


def an_element(vr: bytes, group: int, element: int, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    tag = group.to_bytes(2, "little") + element.to_bytes(2, "little")
    return tag + vr + len(value).to_bytes(2, "little") + value


def a_source(*elements: bytes) -> Dataset:
    """Read a data set from its bytes, as it would come: nothing decoded or judged yet."""
    return pydicom.dcmread(BytesIO(b"".join(elements)), force=True)


def copied(**attributes: Any) -> Copied:
    return copy_patient_and_study(an_image(a_gradient().astype("u2"), **attributes))


@pytest.mark.parametrize("known_as", [None, {"PatientID": "P1"}])
def test_an_empty_attribute_may_claim_a_vr_that_there_is_not(
    known_as: dict[str, str] | None,
) -> None:
    source = a_source(
        an_element(b"UI", 0x0008, 0x0018, b"1.2.3\0"),
        an_element(b"AW", 0x0008, 0x0020, b""),
        an_element(b"LO", 0x0010, 0x0020, b"P1"),
    )

    taken = copy_patient_and_study(source, known_as).attributes

    assert taken.PatientID == "P1"
    assert taken["StudyDate"].is_empty


def test_type_2_attributes_are_there_though_the_source_has_none() -> None:
    taken = copied()

    for keyword in TYPE_2:
        assert keyword in taken.attributes
        assert taken.attributes[keyword].is_empty
    assert taken.left_out == ()


def test_patient_and_study_are_taken_over() -> None:
    attributes = {
        "PatientName": "Test^Paula",
        "PatientID": "P-1",
        "IssuerOfPatientID": "Site A",
        "PatientBirthDate": "19700131",
        "PatientSex": "F",
        "StudyDate": "20260714",
        "StudyTime": "235960.5",
        "StudyID": "S1",
        "AccessionNumber": "A-77",
        "StudyDescription": "Thorax p.a.",
        "ReferringPhysicianName": "Ward^Wanda",
        "PatientAge": "056Y",
        "PatientWeight": "70.5",
        "TimezoneOffsetFromUTC": "-0330",
    }

    taken = copied(**attributes)

    assert {keyword: str(taken.attributes[keyword].value) for keyword in attributes} == attributes
    assert taken.left_out == ()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    ("vr", "tag", "value", "keyword"),
    [
        (b"CS", (0x0010, 0x0040), b"female", "PatientSex"),
        (b"CS", (0x0010, 0x0040), b"W", "PatientSex"),
        (b"DA", (0x0008, 0x0020), b"2026.07.14", "StudyDate"),
        (b"DA", (0x0010, 0x0030), b"20260230", "PatientBirthDate"),
        (b"TM", (0x0008, 0x0030), b"12:30:00", "StudyTime"),
        (b"TM", (0x0008, 0x0030), b"12.5", "StudyTime"),
        (b"TM", (0x0008, 0x0030), b"2500", "StudyTime"),
        (b"SH", (0x0020, 0x0010), b"longer than sixteen", "StudyID"),
        (b"SH", (0x0020, 0x0010), b"two\\values", "StudyID"),
        (b"LO", (0x0008, 0x1030), b"x" * 65, "StudyDescription"),
        (b"LO", (0x0008, 0x1030), b"with\x07bell", "StudyDescription"),
        (b"AS", (0x0010, 0x1010), b"56", "PatientAge"),
        (b"DS", (0x0010, 0x1030), b"heavy", "PatientWeight"),
        (b"SH", (0x0008, 0x0201), b"CEST", "TimezoneOffsetFromUTC"),
        (b"PN", (0x0010, 0x0010), b"A=B=C=D", "PatientName"),
        (b"PN", (0x0008, 0x0090), b"x" * 65, "ReferringPhysicianName"),
    ],
)
def test_a_value_that_breaks_its_vr_is_left_out_and_counted(
    vr: bytes, tag: tuple[int, int], value: bytes, keyword: str
) -> None:
    taken = copy_patient_and_study(a_source(an_element(vr, *tag, value)))

    assert taken.left_out == (keyword,)
    assert keyword not in taken.attributes or taken.attributes[keyword].is_empty


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_what_identifies_the_study_is_kept_though_wrong() -> None:
    source = a_source(
        an_element(b"SH", 0x0008, 0x0050, b"longer than sixteen"),
        an_element(b"LO", 0x0010, 0x0020, b"x" * 70),
        an_element(b"UI", 0x0020, 0x000D, b"1.02.003\0"),
    )

    taken = copy_patient_and_study(source)

    assert taken.attributes.AccessionNumber == "longer than sixteen"
    assert taken.attributes.PatientID == "x" * 70
    assert taken.attributes.StudyInstanceUID == "1.02.003"
    assert taken.left_out == ()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@given(st.binary(max_size=90))
def test_no_bytes_of_a_name_are_too_odd_to_be_copied_or_left_out(name: bytes) -> None:
    source = a_source(
        an_element(b"CS", 0x0008, 0x0005, b"ISO 2022 IR 87"),
        an_element(b"PN", 0x0010, 0x0010, name),
    )

    taken = copy_patient_and_study(source)

    assert str(taken.attributes.PatientName or "").isprintable()
    str(taken.attributes.PatientName or "").encode("utf-8")


@pytest.mark.parametrize(
    ("name", "patient_name"),
    [
        ("chrArab.dcm", "قباني^لنزار"),
        ("chrRuss.dcm", "Люкceмбypг"),  # noqa: RUF001 - pydicom mixed the alphabets
        ("chrGreek.dcm", "Διονυσιος"),
        ("chrH31.dcm", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrKoreanMulti.dcm", "김희중"),
        ("chrX1.dcm", "Wang^XiaoDong=王^小東"),
    ],
)
def test_names_come_out_of_every_character_set(name: str, patient_name: str) -> None:
    source = pydicom.dcmread(get_charset_files(name)[0])

    assert str(copy_patient_and_study(source).attributes.PatientName) == patient_name


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_undeclared_text_is_read_as_what_it_probably_is(encoding: str) -> None:
    source = a_source(an_element(b"PN", 0x0010, 0x0010, "Müller^Jörg".encode(encoding)))

    assert str(copy_patient_and_study(source).attributes.PatientName) == "Müller^Jörg"


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_an_unknown_character_set_never_fails() -> None:
    source = a_source(
        an_element(b"CS", 0x0008, 0x0005, b"KLINGON"),
        an_element(b"PN", 0x0010, 0x0010, b"Worf^M\xf6g"),
    )

    assert str(copy_patient_and_study(source).attributes.PatientName).startswith("Worf^")


def test_the_issuer_of_the_accession_number_is_taken_over() -> None:
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = "2.25.9", "ISO"

    taken = copied(IssuerOfAccessionNumberSequence=[issuer])

    assert taken.attributes.IssuerOfAccessionNumberSequence[0] == issuer


def test_an_issuer_without_its_type_is_left_out() -> None:
    issuer = Dataset()
    issuer.UniversalEntityID = "2.25.9"

    taken = copied(IssuerOfAccessionNumberSequence=[issuer])

    assert taken.left_out == ("IssuerOfAccessionNumberSequence",)
    assert "IssuerOfAccessionNumberSequence" not in taken.attributes


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ({"PatientIdentityRemoved": "NO"}, True),
        ({"PatientIdentityRemoved": "YES", "DeidentificationMethod": "Ours"}, True),
        ({"PatientIdentityRemoved": "YES"}, False),
    ],
)
def test_removed_identity_is_said_only_with_its_method(
    attributes: dict[str, str], kept: bool
) -> None:
    assert ("PatientIdentityRemoved" in copied(**attributes).attributes) is kept


@pytest.mark.parametrize(
    ("offset", "minutes"), [("+0200", 120), ("-0330", -210), ("+0000", 0), ("", None)]
)
def test_the_zone_is_the_offset(offset: str, minutes: int | None) -> None:
    source = Dataset()
    source.TimezoneOffsetFromUTC = offset

    zone = time_zone_of(source)

    assert (zone and zone.utcoffset(None)) == (
        None if minutes is None else timedelta(minutes=minutes)
    )


def test_no_value_is_valid_beside_one_that_is_not() -> None:
    source = a_source(an_element(b"CS", 0x0020, 0x0020, b"L\\small"))

    assert valid_values(source, "PatientOrientation") == ()


@pytest.mark.parametrize(
    ("keyword", "vr"),
    [
        (keyword, vr)
        for keyword in ("PatientAge", "TimezoneOffsetFromUTC", "IssuerOfAccessionNumberSequence")
        for vr in ("SQ", "FD", "US")
    ],
)
def test_an_element_that_cannot_be_parsed_is_left_out(keyword: str, vr: str) -> None:
    source = an_image(a_gradient().astype("u2"), PatientID="P-1")
    tag = Tag(keyword)
    source._dict[tag] = RawDataElement(tag, vr, 3, b"\xff\0\xfe", 0, False, True)

    taken = copy_patient_and_study(source)

    assert taken.attributes.PatientID == "P-1"
    assert taken.left_out == (keyword,)


def test_of_a_source_that_contradicts_its_study_only_the_times_are_taken() -> None:
    source = an_image(
        a_gradient().astype("u2"),
        PatientID="WRONG",
        PatientName="Wrong^Patient",
        PatientAge="042Y",
        OtherPatientNames="Wrong^Other",
        StudyDate="20260704",
        StudyInstanceUID="1.2.3",
    )

    taken = copy_patient_and_study(
        source, {"PatientID": "P1", "PatientName": "Müller^Jane", "PatientSex": "", "StudyID": "7"}
    ).attributes

    assert (taken.PatientID, str(taken.PatientName), taken.StudyID) == ("P1", "Müller^Jane", "7")
    assert (taken.StudyDate, taken.StudyInstanceUID) == ("20260704", "1.2.3")
    assert {"PatientAge", "OtherPatientNames"}.isdisjoint(taken.dir())
    for keyword in TYPE_2:
        assert keyword in taken
