"""What differs between two data sets of one SOP Instance UID. Pure.

Both say the same in other bytes (another transfer syntax or character set), or they say something
else of the patient or the order, or they are not the same instance at all.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from dicom_listener.character_set import decode, encodings_of
from imaging_pixels.decode import UndecodablePixels, frame_count
from imaging_pixels.decode import decode as decode_pixels

MOST_PIXEL_BYTES = 256 * 1024 * 1024
"""Of longer pictures only the stored bytes are compared: decoding them takes memory and time."""


class Kind(StrEnum):
    """How much two data sets differ."""

    ENCODING = "encoding"
    """They say the same."""
    ATTRIBUTES = "attributes"
    """They say something else of the patient or the order."""
    CONTENT = "content"
    """Pixels, geometry, the series or study, or anything else."""
    UNCOMPARED = "uncompared"
    """The first is not kept any more, and what is remembered of it the other says too."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs, by keyword; an attribute without one is named by its tag."""

    kind: Kind
    keywords: tuple[str, ...]


_PATIENT = (
    # PS3.3 §C.7.1.1 Patient, §C.2.2 and §C.2.3 Patient Identification and Demographic.
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("TypeOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex"),
    *("PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar"),
    *("PatientAlternativeCalendar", "QualityControlSubject", "OtherPatientIDs"),
    *("OtherPatientIDsSequence", "OtherPatientNames", "PatientBirthName", "PatientAddress"),
    *("PatientTelephoneNumbers", "PatientTelecomInformation", "PatientMotherBirthName"),
    *("EthnicGroup", "EthnicGroupCodeSequence", "EthnicGroups", "PatientComments"),
    *("PatientReligiousPreference", "PatientPrimaryLanguageCodeSequence"),
    *("CountryOfResidence", "RegionOfResidence", "MilitaryRank", "BranchOfService"),
    *("ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization"),
    *("ReferencedPatientSequence", "ReferencedPatientPhotoSequence", "PatientSpeciesDescription"),
    *("PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence"),
    *("BreedRegistrationSequence", "StrainDescription", "StrainNomenclature"),
    *("StrainCodeSequence", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "ConfidentialityConstraintOnPatientDataDescription"),
    *("SourcePatientGroupIdentificationSequence", "GroupOfPatientsIdentificationSequence"),
    # §C.7.2.2 Patient Study, §C.2.4 Patient Medical.
    *("AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "PatientAge"),
    *("PatientSize", "PatientSizeCodeSequence", "PatientWeight", "PatientBodyMassIndex"),
    *("MeasuredAPDimension", "MeasuredLateralDimension", "MedicalAlerts", "Allergies"),
    *("SmokingStatus", "PregnancyStatus", "LastMenstrualDate", "PatientState", "Occupation"),
    *("AdditionalPatientHistory", "SpecialNeeds", "PatientSexNeutered", "GenderIdentitySequence"),
    *("SexParametersForClinicalUseCategorySequence", "PersonNamesToUseSequence"),
    *("ThirdPersonPronounsSequence", "PatientClinicalTrialParticipationSequence"),
)
_ORDER = (
    # §C.7.2.1 General Study, without the study itself.
    *("StudyDate", "StudyTime", "AccessionNumber", "IssuerOfAccessionNumberSequence"),
    *("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    *("ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers"),
    *("ConsultingPhysicianName", "ConsultingPhysicianIdentificationSequence", "StudyID"),
    *("StudyDescription", "ProcedureCodeSequence", "PhysiciansOfRecord"),
    *("PhysiciansOfRecordIdentificationSequence", "NameOfPhysiciansReadingStudy"),
    *("PhysiciansReadingStudyIdentificationSequence", "ReferencedStudySequence"),
    *("RequestingService", "RequestingServiceCodeSequence", "ReasonForPerformedProcedure"),
    "ReasonForPerformedProcedureCodeSequence",
    # §C.3 Visit.
    *("AdmissionID", "IssuerOfAdmissionID", "IssuerOfAdmissionIDSequence", "ServiceEpisodeID"),
    *("ServiceEpisodeDescription", "IssuerOfServiceEpisodeID", "RouteOfAdmissions"),
    *("IssuerOfServiceEpisodeIDSequence", "AdmittingDate", "AdmittingTime", "VisitStatusID"),
    *("CurrentPatientLocation", "PatientInstitutionResidence", "VisitComments", "ReasonForVisit"),
    *("ReasonForVisitCodeSequence", "ReferencedVisitSequence"),
    # §C.4 Requested Procedure, Imaging Service Request; §C.7.3.1 and §10.6 Request Attributes.
    *("RequestAttributesSequence", "RequestedProcedureID", "RequestedProcedureDescription"),
    *("RequestedProcedureCodeSequence", "RequestedProcedurePriority"),
    *("RequestedProcedureComments", "ReasonForTheRequestedProcedure"),
    *("ReasonForRequestedProcedureCodeSequence", "RequestedProcedureLocation"),
    *("RequestingPhysician", "RequestingPhysicianIdentificationSequence"),
    *("OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence"),
    *("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"),
    *("ImagingServiceRequestComments", "ReasonForTheImagingServiceRequest", "OrderEnteredBy"),
    *("ScheduledProcedureStepID", "ScheduledProcedureStepDescription"),
    # §C.12.1 SOP Common: the record of exactly such a change.
    *("OriginalAttributesSequence", "InstanceCoercionDateTime"),
)
OF_PATIENT_OR_ORDER = frozenset((*_PATIENT, *_ORDER))
"""What an update from the registration or the order system may change."""

_SPECIFIC_CHARACTER_SET = 0x00080005
_LENGTH_TO_END = 0x00080001
_DATA_SET_TRAILING_PADDING = 0xFFFCFFFC
_NO_PART_OF_WHAT_IS_SAID = {_SPECIFIC_CHARACTER_SET, _LENGTH_TO_END, _DATA_SET_TRAILING_PADDING}
_PIXEL_GROUP = 0x7FE0
_PIXEL_DATA = ("FloatPixelData", "DoubleFloatPixelData", "PixelData")
# How samples lie in the bytes: it may change with the transfer syntax.
_LAYOUT = frozenset({"PlanarConfiguration", "PhotometricInterpretation"})
_ABSENT_MEANS: dict[int, object] = {0x00280006: b"\0\0", 0x00280008: (1.0,)}
_TEXT = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC"}) | {
    *("UI", "UR", "UT")
}
_ONE_VALUE = frozenset({"LT", "ST", "UR", "UT"})
_DECIMAL = frozenset({"DS", "IS"})
_BYTES_EACH = {"FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8, "FL": 4, "OF": 4, "OL": 4} | {
    "SL": 4,
    "UL": 4,
    "AT": 2,
    "OW": 2,
    "SS": 2,
    "US": 2,
    "US or SS": 2,
    "OB or OW": 2,
    "US or OW": 2,
    "US or SS or OW": 2,
}
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"})


def compare(first: Dataset, second: Dataset, *, pixels_are_equal: Callable[[], bool]) -> Difference:
    """Return what differs between two data sets as they were read from files.

    Encoding of any kind is no difference: byte order, VR and length form, padding, group lengths,
    character set, an empty attribute that the other leaves out. ``pixels_are_equal`` is asked last.
    """
    keywords = _differing(first, second)
    layout = _LAYOUT.intersection(keywords)
    if layout and _is_color(first) and _is_color(second):
        keywords = [each for each in keywords if each not in layout]
    if not pixels_are_equal():
        keywords.append("PixelData")
    if not keywords:
        return Difference(Kind.ENCODING, ())
    kind = Kind.ATTRIBUTES if OF_PATIENT_OR_ORDER.issuperset(keywords) else Kind.CONTENT
    return Difference(kind, tuple(keywords))


def equal_pixels(first: Dataset, second: Dataset) -> bool:
    """Whether two instances show the same: stored bytes, or stored values of every frame.

    What cannot be decoded, or is too long to be, is equal only where its bytes are.
    """
    held = [[keyword for keyword in _PIXEL_DATA if keyword in each] for each in (first, second)]
    if held[0] != held[1]:
        return False
    if not held[0]:
        return True
    if _syntax(first) == _syntax(second) and _pixel_digest(first) == _pixel_digest(second):
        return True
    try:
        return _equal_frames(first, second)
    except UndecodablePixels:
        return False


def text_of(ds: Dataset, keyword: str) -> str:
    """Return the text of one attribute, decoded; empty where it is absent or no text."""
    tag = tag_for_keyword(keyword)
    value = None if tag is None else _value(ds, tag, _encodings(ds, ()))
    if not isinstance(value, tuple):
        return ""
    return "\\".join(each for each in value if isinstance(each, str))


def _equal_frames(first: Dataset, second: Dataset) -> bool:
    frames = frame_count(first)
    if frames != frame_count(second):
        return False
    if max(_decoded_bytes(first), _decoded_bytes(second)) > MOST_PIXEL_BYTES:
        return False
    return all(
        np.array_equal(decode_pixels(first, frame), decode_pixels(second, frame))
        for frame in range(frames)
    )


def _decoded_bytes(ds: Dataset) -> int:
    try:
        samples = int(ds.get("SamplesPerPixel") or 1)
        bits = ds.Rows * ds.Columns * ds.BitsAllocated * samples
        return int(bits) * frame_count(ds) // 8
    except Exception as error:
        # An element that is cut off, or claims another VR, fails in many ways.
        raise UndecodablePixels("the Image Pixel module is damaged") from error


def _pixel_digest(ds: Dataset) -> list[bytes]:
    values = [_element(ds, keyword).value for keyword in _PIXEL_DATA if keyword in ds]
    return [hashlib.sha256(bytes(each or b"").rstrip(b"\0")).digest() for each in values]


def _syntax(ds: Dataset) -> str:
    uid = str(ds.file_meta.get("TransferSyntaxUID", ""))
    return "native" if uid in _NATIVE else uid


def _is_color(ds: Dataset) -> bool:
    return text_of(ds, "PhotometricInterpretation").startswith(("RGB", "YBR"))


def _differing(first: Dataset, second: Dataset) -> list[str]:
    one, other = _said(first, ()), _said(second, ())
    return [
        keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        for tag in sorted(one.keys() | other.keys())
        if tag >> 16 != _PIXEL_GROUP and _of(one, tag) != _of(other, tag)
    ]


def _of(said: dict[int, object], tag: int) -> object:
    return said.get(tag, _ABSENT_MEANS.get(tag))


def _said(ds: Dataset, inherited: tuple[str, ...]) -> dict[int, object]:
    """Return what a data set or an item says, by tag, in the one form of all its encodings."""
    encodings = _encodings(ds, inherited)
    values = {
        int(tag): _value(ds, int(tag), encodings)
        for tag in ds.keys()  # noqa: SIM118 - iterating over a data set converts its elements
        if int(tag) not in _NO_PART_OF_WHAT_IS_SAID and tag & 0xFFFF
    }
    return {tag: value for tag, value in values.items() if value not in (None, b"", ())}


def _encodings(ds: Dataset, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """Return the encodings of a data set, or of an item, which may have its own (PS3.5 §7.5.3)."""
    if _SPECIFIC_CHARACTER_SET not in ds:
        return inherited
    return encodings_of(_bytes(_element(ds, _SPECIFIC_CHARACTER_SET))) or inherited


def _value(ds: Dataset, tag: int, encodings: tuple[str, ...]) -> object:
    if tag not in ds or tag >> 16 == _PIXEL_GROUP:
        return None
    element = _element(ds, tag)
    vr = _vr(element, tag)
    try:
        if vr == "SQ":
            return tuple(_as_one_value(_said(item, encodings)) for item in ds[tag].value)
        data = _bytes(element)
        if tag >> 16 & 1:
            # Read without its dictionary, a private element may have lost its VR.
            return _little_endian(element, vr, data).rstrip(b" \0")
        if vr in _TEXT or vr in _DECIMAL:
            return _text(vr, decode(data, encodings))
        data = _little_endian(element, vr, data)
        return data.rstrip(b"\0") if vr in {"OB", "UN"} else data
    except Exception:  # noqa: BLE001 - whatever a malformed element does to the parser
        return _bytes(element)


def _element(ds: Dataset, tag: int | str) -> Any:
    """Return an element as it was read.

    Else pydicom would convert an empty one, and fail where there is no such VR as it claims.
    """
    return ds.get_item(tag, keep_deferred=True)


def _as_one_value(said: dict[int, object]) -> frozenset[tuple[int, object]]:
    """Return what an item says, so that it can be compared inside what holds it."""
    return frozenset(said.items())


def _vr(element: RawDataElement | DataElement, tag: int) -> str:
    if element.VR and element.VR != "UN":
        return str(element.VR)
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _bytes(element: RawDataElement | DataElement) -> bytes:
    """Return the bytes of an element as they came; of one that pydicom has converted, its text."""
    value: Any = element.value
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    values = value if isinstance(value, list | tuple) else [value]
    return "\\".join(str(each) for each in values).encode()


def _little_endian(element: RawDataElement | DataElement, vr: str, data: bytes) -> bytes:
    each = _BYTES_EACH.get(vr, 1)
    if each == 1 or not isinstance(element, RawDataElement) or element.is_little_endian:
        return data
    whole = len(data) - len(data) % each
    swapped = np.frombuffer(data[:whole], dtype=f">u{each}").astype(f"<u{each}").tobytes()
    return swapped + data[whole:]


def _text(vr: str, text: str) -> tuple[object, ...]:
    values = [text] if vr in _ONE_VALUE else text.split("\\")
    plain = [value.strip() for value in values]
    if vr == "PN":
        plain = [_name(value) for value in plain]
    if not any(plain):
        return ()
    return tuple(_number(value) for value in plain) if vr in _DECIMAL else tuple(plain)


def _name(value: str) -> str:
    return "=".join(group.rstrip("^ ") for group in value.split("=")).rstrip("=")


def _number(value: str) -> object:
    """Return a DS or IS as the number that it is, however it is written."""
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value
