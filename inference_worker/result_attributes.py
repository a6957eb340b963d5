"""What all objects made of one reading have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from enum import StrEnum

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from inference_worker.copied_attributes import (
    copy_patient_and_study,
    put,
    time_zone_of,
    valid_values,
)
from inference_worker.explicit_vr import elements, elements_of, item_of, part10_file
from message_contracts.coding import CodedConcept
from message_contracts.identifiers import derived_uid
from message_contracts.inference import ClassProbability
from message_contracts.model_description import ModelDescription

NOT_FOR_PRIMARY_DIAGNOSIS = "AI - not for primary diagnosis"
"""First in the Series Description of all that a model made."""

MANUFACTURER = "Countersign"
IMPLEMENTATION_CLASS_UID = derived_uid("implementation", "inference_worker")
IMPLEMENTATION_VERSION_NAME = "COUNTERSIGN_0_1"

FIRST_SERIES_NUMBER = 9001
"""Far above what modalities count to: workstations list results after the pictures."""

_LONG_STRING = 64
_PROCESSING = item_of(
    elements(CodeValue="109102", CodingSchemeDesignator="DCM", CodeMeaning="Processing Equipment")
)


class Kind(StrEnum):
    """Which of a reading's objects; part of its UIDs."""

    SECONDARY_CAPTURE = "secondary_capture"
    STRUCTURED_REPORT = "structured_report"
    PARAMETRIC_MAP = "parametric_map"
    EXPLANATION = "explanation"
    """A Secondary Capture about another class, which a person has asked for."""


@dataclass(frozen=True)
class Reading:
    """What a model said of a study, and when it was asked."""

    study_instance_uid: str
    """As the message has it; a source may carry it with other padding."""
    study_version: int
    model: ModelDescription
    weights_sha256: str
    requested_at: datetime
    """Aware. All times in the results are this one, so that reading again makes the same bytes."""
    time_zone: tzinfo
    """Of the times in the results where the source names none."""
    probabilities: tuple[ClassProbability, ...]
    """Most probable first."""
    uncertain: bool
    known_as: Mapping[str, str] | None = None
    """What the study is known by, by keyword, where its instances contradict each other."""
    _alike: "list[_Alike]" = field(default_factory=list, init=False, compare=False, repr=False)
    """Of the instance of which an object was made last: the next is often made of it too."""

    def alike_of(self, source: Dataset) -> "_Alike":
        """Return what all objects of this reading that are made of one instance have alike."""
        if not self._alike or self._alike[0].source is not source:
            self._alike[:] = [_alike(source, self)]
        return self._alike[0]

    def instance_uid(self, kind: Kind, number: int) -> str:
        """Return the UID that this reading's object of a kind and Instance Number always has."""
        return self.uid(kind, "instance" if number == 1 else f"instance {number}")

    def uid(self, kind: Kind, level: str) -> str:
        """Return the UID that something of this reading always has."""
        return derived_uid(
            "result",
            level,
            self.study_instance_uid,
            self.study_version,
            self.model.name,
            self.model.version,
            self.weights_sha256,
            kind,
        )


@dataclass(frozen=True)
class _Alike:
    source: Dataset
    encoded: Mapping[int, bytes]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class ResultObject:
    """A result as a Part 10 file."""

    content: bytes
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    left_out: tuple[str, ...]
    """Keywords of the source's attributes that broke their VR and were not taken over."""


class Draft(Dataset):
    """An object that is being made; what is the same in all of them is encoded already.

    What is set as an attribute is written instead of what ``encoded`` has under its tag.
    """

    def __init__(self, uids: tuple[str, str, str], encoded: dict[int, bytes]) -> None:
        super().__init__()
        self.uids = uids
        """SOP Class UID, SOP Instance UID and Series Instance UID."""
        self.encoded = encoded


def begin(
    source: Dataset, reading: Reading, kind: Kind, sop_class_uid: UID, number: int = 1
) -> tuple[Draft, tuple[str, ...]]:
    """Return an object with all but its content, and what of the source was left out.

    Patient, Study, General Series, General Equipment and SOP Common modules, in ISO_IR 192, with
    Contributing Equipment (PS3.3 §C.12.1.1.5) that names the model, its version and device UID.
    ``number`` is its Instance Number in the series of its kind.
    """
    uids = (str(sop_class_uid), reading.instance_uid(kind, number), reading.uid(kind, "series"))
    alike = reading.alike_of(source)
    own = elements(
        SOPClassUID=uids[0],
        SOPInstanceUID=uids[1],
        SeriesInstanceUID=uids[2],
        SeriesNumber=FIRST_SERIES_NUMBER + tuple(Kind).index(kind),
        InstanceNumber=number,
    )
    return Draft(uids, {**alike.encoded, **own}), alike.left_out


def _alike(source: Dataset, reading: Reading) -> _Alike:
    copied = copy_patient_and_study(source, reading.known_as)
    put(copied.attributes, "StudyInstanceUID", [reading.study_instance_uid])
    at = reading.requested_at.astimezone(time_zone_of(copied.attributes) or reading.time_zone)
    date, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")
    model = f"{reading.model.name} {reading.model.version}"
    made = elements(
        SpecificCharacterSet="ISO_IR 192",
        InstanceCreationDate=date,
        InstanceCreationTime=time,
        SeriesDate=date,
        SeriesTime=time,
        ContentDate=date,
        ContentTime=time,
        SeriesDescription=f"{NOT_FOR_PRIMARY_DIAGNOSIS}: {model}"[:_LONG_STRING],
        Manufacturer=MANUFACTURER,
        ManufacturerModelName=reading.model.name,
        SoftwareVersions=reading.model.version,
        DeviceSerialNumber=reading.weights_sha256,
        ContributingEquipmentSequence=[_contributing_equipment(source, reading, at)],
    )
    return _Alike(source, elements_of(copied.attributes) | made, copied.left_out)


def finish(
    made: Draft, left_out: tuple[str, ...], encoded: Mapping[int, bytes] | None = None
) -> ResultObject:
    """Write the object down, with what of it is encoded already; the same has the same bytes."""
    sop_class_uid, sop_instance_uid, series_instance_uid = made.uids
    meta = elements(
        FileMetaInformationVersion=b"\0\1",
        MediaStorageSOPClassUID=sop_class_uid,
        MediaStorageSOPInstanceUID=sop_instance_uid,
        TransferSyntaxUID=ExplicitVRLittleEndian,
        ImplementationClassUID=IMPLEMENTATION_CLASS_UID,
        ImplementationVersionName=IMPLEMENTATION_VERSION_NAME,
    )
    return ResultObject(
        content=part10_file(meta, made.encoded | elements_of(made) | dict(encoded or {})),
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        left_out=left_out,
    )


def can_be_referenced(source: Dataset) -> bool:
    """Tell whether the UIDs of an instance may stand in an object that is to be valid.

    One that breaks VR UI is left out of references: the Derivation Description and the study
    still say where the result came from.
    """
    uids = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
    return all(len(valid_values(source, keyword)) == 1 for keyword in uids)


def put_laterality(made: Dataset, source: Dataset) -> None:
    """Say which side, as far as the source knows it; empty otherwise (Type 2C, PS3.3 §C.7.3.1).

    Body Part Examined is not taken over: beside an unpaired one, Laterality may not be present.
    """
    sides = [valid_values(source, keyword) for keyword in ("Laterality", "ImageLaterality")]
    put(made, "Laterality", next((side for side in sides if side in {("R",), ("L",)}), ()))


def code_item(concept: CodedConcept) -> Dataset:
    """Return a code sequence item (PS3.3 §8.8)."""
    item = Dataset()
    item.CodeValue = concept.value
    item.CodingSchemeDesignator = concept.scheme_designator
    item.CodeMeaning = concept.meaning
    return item


def _contributing_equipment(source: Dataset, reading: Reading, at: datetime) -> bytes:
    institution_name = valid_values(source, "InstitutionName")
    named = elements(InstitutionName=list(institution_name)) if institution_name else {}
    described = elements(
        PurposeOfReferenceCodeSequence=[_PROCESSING],
        Manufacturer=MANUFACTURER,
        ManufacturerModelName=reading.model.name,
        SoftwareVersions=reading.model.version,
        DeviceUID=reading.model.device_uid,
        ContributionDateTime=at.strftime("%Y%m%d%H%M%S.%f%z"),
        ContributionDescription="Classification by a neural network, with a Grad-CAM heat map",
    )
    return item_of(described | named)
