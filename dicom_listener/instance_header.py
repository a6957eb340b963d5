"""What the listener wants to know of an instance, read from the beginning of its data set.

Reading is tolerant: what is malformed is taken as absent, and only a data set that does not say
which instance of which study it is cannot be understood.
"""

import io
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.tag import Tag

from dicom_listener.character_set import decode, encodings_of
from dicom_listener.element_scan import scan
from dicom_listener.sop_classes import BIG_ENDIAN, DEFLATED, IMPLICIT_VR, is_read_by_no_model
from message_contracts.identifiers import is_uid
from message_contracts.view_code import view_of
from service_runtime.errors import PermanentError

PREFIX_BYTES = 64 * 1024
"""As much of a data set is kept in memory while it arrives; nearly every header fits."""

_DEFER_BYTES = 1024 * 1024
_INFLATED_LIMIT_BYTES = 64 * 1024 * 1024
_REMEMBERED_BYTES = 16 * 1024
"""Longer headers are read each time: nobody fills the memory with them."""
_US_LENGTH = 2

_KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "InstitutionName",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "SeriesDescription",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "BodyPartExamined",
    "ViewPosition",
    "ContributingEquipmentSequence",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyID",
    "SeriesNumber",
    "InstanceNumber",
    "Laterality",
    "ImageLaterality",
    "NumberOfFrames",
    "Rows",
    "Columns",
)
_WANTED = {tag_for_keyword(keyword) or 0: keyword for keyword in _KEYWORDS}
_LAST_WANTED = max(_WANTED)
# Far behind the rest: looked for where it matters, in radiographs, and not in every slice.
_VIEW_CODE = {tag_for_keyword("ViewCodeSequence") or 0: "ViewCodeSequence"}
_WANTED_OF_RADIOGRAPHS = _WANTED | _VIEW_CODE
_RADIOGRAPHS = frozenset({"CR", "DX", "MG", "RG", "RF", "IO", "PX"})
_SEQUENCES = frozenset({tag_for_keyword("ContributingEquipmentSequence"), *_VIEW_CODE})


class _Found(NamedTuple):
    """Elements by keyword."""

    plain: dict[str, bytes]
    """Values of those that are no sequences."""
    sequences: dict[str, RawDataElement | DataElement]


class NotUnderstood(PermanentError):
    """A data set does not say which instance of which study it is; the text says what is wrong."""


class SharedHeader(NamedTuple):
    """What the instances of a series nearly always share: they all have the same object of it.

    Text is decoded; what is absent is empty.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    modality: str
    body_part_examined: str
    view_position: str
    laterality: str
    image_type: tuple[str, ...]
    number_of_frames: int
    series_number: int | None
    series_description: str
    rows: int | None
    columns: int | None
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    """All component groups, separated by ``=``."""
    patient_birth_date: str
    """As sent: ``YYYYMMDD`` where the sender keeps to the Standard."""
    patient_sex: str
    patient_age: str
    """At the examination, such as ``018Y``."""
    accession_number: str
    study_id: str
    study_description: str
    referring_physician_name: str
    institution_name: str
    study_date: str
    study_time: str
    timezone_offset: str
    """(0008,0201), such as ``+0530``."""
    is_image: bool
    """It has pixels that a model could read; false for what only accompanies images."""


class InstanceHeader(NamedTuple):
    """One instance, its study and its patient."""

    shared: SharedHeader
    sop_instance_uid: str
    instance_number: int | None
    view_code: str
    """What View Code Sequence says, as the term of View Position that it stands for."""
    contributing_device_uids: frozenset[str]
    """(0018,1002) of every item of (0018,A001)."""

    @property
    def study_instance_uid(self) -> str:
        """Which study it is of."""
        return self.shared.study_instance_uid

    @property
    def sop_class_uid(self) -> str:
        """What it is."""
        return self.shared.sop_class_uid


def parse_header(
    file: BinaryIO, transfer_syntax_uid: str, *, whole: bool = True
) -> InstanceHeader | None:
    """Read the header of the data set at the current position of ``file``.

    ``whole`` says that the data set ends where the file ends; otherwise ``None`` means that the
    header goes on behind that end.

    Raises
    ------
    NotUnderstood
        A UID that says what this is is missing or malformed, or nothing can be parsed.
    """
    if transfer_syntax_uid in DEFLATED:
        file = inflated(file)
    start = file.tell()
    found, reached_end = _elements(file, transfer_syntax_uid, _WANTED)
    modality = found.plain.get("Modality", b"").decode("ascii", "replace").strip()
    if reached_end and modality in _RADIOGRAPHS:
        file.seek(start)
        found, reached_end = _elements(file, transfer_syntax_uid, _WANTED_OF_RADIOGRAPHS)
    if not reached_end and not whole:
        return None
    return _header(found, is_little_endian=transfer_syntax_uid not in BIG_ENDIAN)


def study_begun(data: bytes | bytearray, transfer_syntax_uid: str) -> str:
    """Return the Study Instance UID of a data set that begins so, or nothing where it is not there.

    Of some the header goes on where 64 KiB are long past: behind a VOI LUT.
    """
    try:
        header = parse_header(io.BytesIO(data), transfer_syntax_uid)
    except NotUnderstood:
        return ""
    return header.study_instance_uid if header else ""


def inflated(file: BinaryIO) -> BinaryIO:
    """Return the beginning of a deflated data set (PS3.5 §A.5), as far as it inflates."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    data = bytearray()
    while len(data) < _INFLATED_LIMIT_BYTES and (piece := file.read(PREFIX_BYTES)):
        try:
            data += inflate.decompress(piece, PREFIX_BYTES * 64)
        except zlib.error:
            break
    return io.BytesIO(data)


def _elements(
    file: BinaryIO, transfer_syntax_uid: str, wanted: Mapping[int, str]
) -> tuple[_Found, bool]:
    """Return the wanted elements, and whether the place behind the last was reached."""
    last = _LAST_WANTED if wanted is _WANTED else max(wanted)
    is_implicit, is_little = (
        transfer_syntax_uid in IMPLICIT_VR,
        transfer_syntax_uid not in BIG_ENDIAN,
    )
    found = _Found({}, {})
    reached_end = False
    if is_little:
        start = file.tell()
        scanned = scan(file.read(PREFIX_BYTES), wanted, last, is_implicit_vr=is_implicit)
        for tag in scanned.values.keys() & _SEQUENCES:
            code, value = scanned.values.pop(tag)
            vr = code.decode() if code else None
            found.sequences[wanted[tag]] = RawDataElement(
                Tag(tag), vr, len(value), value, 0, is_implicit, is_little
            )
        found.plain.update({wanted[tag]: value for tag, (_, value) in scanned.values.items()})
        if scanned.reached_end:
            return found, True
        file.seek(start + scanned.length)

    def stop(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal reached_end
        reached_end = tag > last
        return reached_end

    try:
        for element in data_element_generator(
            file,
            is_implicit,
            is_little,
            stop_when=stop,
            defer_size=_DEFER_BYTES,
            specific_tags=list(wanted),
        ):
            if isinstance(element, RawDataElement) and len(element.value or b"") != element.length:
                break
            keyword = wanted[int(element.tag)]
            if element.tag in _SEQUENCES:
                found.sequences.setdefault(keyword, element)
            elif isinstance(element.value, bytes):
                found.plain.setdefault(keyword, element.value)
    except Exception:  # noqa: BLE001 - whatever a malformed data set does to the parser
        return found, False
    return found, reached_end


def _header(found: _Found, *, is_little_endian: bool) -> InstanceHeader:
    raw, sequences = found
    number = raw.pop("InstanceNumber", b"")
    uid = raw.pop("SOPInstanceUID", b"")
    is_short = sum(map(len, raw.values())) <= _REMEMBERED_BYTES
    shared: Callable[..., SharedHeader] = _shared if is_short else _shared.__wrapped__
    return InstanceHeader(
        shared(tuple(raw.items()), is_little_endian),
        _uid(uid, "SOP Instance UID"),
        # Whatever the character set: a number is ASCII in all of them.
        _integer(decode(number, ())),
        next(filter(None, map(view_of, _of_items(sequences, "ViewCodeSequence", "CodeValue"))), ""),
        frozenset(_of_items(sequences, "ContributingEquipmentSequence", "DeviceUID")),
    )


@lru_cache(maxsize=64)
def _shared(
    elements: tuple[tuple[str, bytes], ...],
    is_little_endian: bool,  # noqa: FBT001 - what is remembered by name is found more slowly
) -> SharedHeader:
    """Return the one object that instances with these elements share."""
    raw = dict(elements)
    encodings = encodings_of(raw.get("SpecificCharacterSet"))

    def uid(keyword: str, name: str) -> str:
        return _uid(raw.get(keyword, b""), name)

    def text(keyword: str) -> str:
        return decode(raw.get(keyword, b""), encodings)

    def first(keyword: str) -> str:
        return text(keyword).split("\\")[0].strip()

    sop_class_uid = uid("SOPClassUID", "SOP Class UID")
    modality = first("Modality")
    return SharedHeader(
        study_instance_uid=uid("StudyInstanceUID", "Study Instance UID"),
        series_instance_uid=uid("SeriesInstanceUID", "Series Instance UID"),
        sop_class_uid=sop_class_uid,
        modality=modality,
        body_part_examined=text("BodyPartExamined"),
        view_position=text("ViewPosition"),
        laterality=text("ImageLaterality") or text("Laterality"),
        image_type=tuple(part.strip() for part in text("ImageType").split("\\") if part.strip()),
        number_of_frames=max(1, _integer(first("NumberOfFrames")) or 1),
        series_number=_integer(first("SeriesNumber")),
        series_description=text("SeriesDescription"),
        rows=_unsigned_short(raw.get("Rows"), is_little_endian=is_little_endian),
        columns=_unsigned_short(raw.get("Columns"), is_little_endian=is_little_endian),
        patient_id=text("PatientID"),
        issuer_of_patient_id=text("IssuerOfPatientID"),
        patient_name=text("PatientName"),
        patient_birth_date=text("PatientBirthDate"),
        patient_sex=text("PatientSex"),
        patient_age=text("PatientAge"),
        accession_number=text("AccessionNumber"),
        study_id=text("StudyID"),
        study_description=text("StudyDescription"),
        referring_physician_name=text("ReferringPhysicianName"),
        institution_name=text("InstitutionName"),
        study_date=first("StudyDate"),
        study_time=first("StudyTime"),
        timezone_offset=first("TimezoneOffsetFromUTC"),
        is_image={"Rows", "Columns"} <= raw.keys()
        and not is_read_by_no_model(sop_class_uid, modality),
    )


def _uid(encoded: bytes, name: str) -> str:
    value = encoded.decode("ascii", "replace").strip(" \0")
    if not value:
        raise NotUnderstood(f"{name} is missing")
    if not is_uid(value):
        raise NotUnderstood(f"{name} is malformed")
    return value


def _integer(text: str) -> int | None:
    """Value of an IS (PS3.5 §6.2: 32 bits), or ``None``."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if -(2**31) <= number < 2**31 else None


def _unsigned_short(value: bytes | None, *, is_little_endian: bool) -> int | None:
    """First value of a US (PS3.5 §6.2), or ``None``."""
    if value is None or len(value) < _US_LENGTH:
        return None
    return int.from_bytes(value[:_US_LENGTH], "little" if is_little_endian else "big")


def _of_items(
    sequences: Mapping[str, DataElement | RawDataElement], sequence: str, keyword: str
) -> tuple[str, ...]:
    """Return what the items of a sequence say by a keyword; an unreadable sequence says nothing."""
    element = sequences.get(sequence)
    if element is None:
        return ()
    try:
        if isinstance(element, RawDataElement):
            element = convert_raw_data_element(element, ds=Dataset())
        values = [item.get(keyword) for item in element.value]
    except Exception:  # noqa: BLE001 - whatever a malformed sequence does to the parser
        return ()
    return tuple(
        str(each)
        for value in values
        if value
        for each in ([value] if isinstance(value, str) else value)
    )
