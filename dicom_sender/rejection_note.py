"""A Key Object Selection that tells a PACS what is not to be used (IHE RAD TF-2, IOCM). Pure.

Titled 113001 DCM "Rejected for Quality Reasons" (PS3.3 §A.35.4, PS3.16 TID 2010), of the study that
it speaks of. What it says of patient and study is what one of the rejected objects says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from io import BytesIO

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from message_contracts.identifiers import derived_uid

KEY_OBJECT_SELECTION_DOCUMENT = "1.2.840.10008.5.1.4.1.1.88.59"
DEVICE_UID = derived_uid("device", "dicom_sender")
"""Of this sender, in Contributing Equipment: what carries it was made by us."""

_MANUFACTURER = "Countersign"
_IMPLEMENTATION_CLASS_UID = derived_uid("implementation", "dicom_sender")
_IMPLEMENTATION_VERSION_NAME = "COUNTERSIGN_0_1"
_DESCRIPTION = "Results of a neural network that are not to be used"
_TAKEN_OVER = (
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("TypeOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex"),
    *("OtherPatientNames", "EthnicGroup", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence",),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "StudyDescription"),
    *("PhysiciansOfRecord", "PatientAge", "PatientSize", "PatientWeight", "Occupation"),
    *("AdmissionID",),
)
_IMAGES = frozenset({"1.2.840.10008.5.1.4.1.1.7"})
"""Secondary Capture; whatever else we make is no image."""


@dataclass(frozen=True)
class Reference:
    """A rejected object."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Note:
    """What a note says, and when it was asked for."""

    study_instance_uid: str
    rejected: Sequence[Reference]
    at: datetime
    """Aware. All times in the note are this one, so that making it again makes the same bytes."""
    time_zone: tzinfo
    """Of the times in it where the rejected objects name none."""

    @property
    def sop_instance_uid(self) -> str:
        """The UID that a note about these objects always has."""
        return self._uid("instance")

    def _uid(self, level: str) -> str:
        rejected = sorted(each.sop_instance_uid for each in self.rejected)
        return derived_uid("rejection_note", level, self.study_instance_uid, *rejected)

    @property
    def series_instance_uid(self) -> str:
        """The UID of the series that the note is alone in."""
        return self._uid("series")


def make(note: Note, source: Dataset) -> bytes:
    """Return the note as a Part 10 file. ``source`` is one of the rejected objects."""
    made = Dataset()
    for keyword in _TAKEN_OVER:
        if keyword in source:
            made[keyword] = source[keyword]
    at = note.at.astimezone(_zone_of(source) or note.time_zone)
    made.SOPClassUID = KEY_OBJECT_SELECTION_DOCUMENT
    made.SOPInstanceUID = note.sop_instance_uid
    made.InstanceCreationDate = made.SeriesDate = made.ContentDate = at.strftime("%Y%m%d")
    made.InstanceCreationTime = made.SeriesTime = made.ContentTime = at.strftime("%H%M%S.%f")
    made.Modality = "KO"
    made.SeriesInstanceUID = note.series_instance_uid
    # Beside the results, which have 9001 and 9002.
    made.SeriesNumber = 9003
    made.InstanceNumber = 1
    made.SeriesDescription = "AI - rejection of results"
    made.ReferencedPerformedProcedureStepSequence = []
    made.Manufacturer = _MANUFACTURER
    made.ContributingEquipmentSequence = [_contributing_equipment(at)]
    made.CurrentRequestedProcedureEvidenceSequence = [_evidence(note)]
    _put_content(made, note)
    return _written(made)


def _zone_of(source: Dataset) -> tzinfo | None:
    offset = str(source.get("TimezoneOffsetFromUTC", "") or "")
    try:
        return datetime.strptime(offset, "%z").tzinfo
    except ValueError:
        return None


def _contributing_equipment(at: datetime) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code("109103", "Modifying Equipment")]
    item.Manufacturer = _MANUFACTURER
    item.ManufacturerModelName = "dicom_sender"
    item.DeviceUID = DEVICE_UID
    item.ContributionDateTime = at.strftime("%Y%m%d%H%M%S.%f%z")
    item.ContributionDescription = "Rejection of results that were sent before"
    return item


def _evidence(note: Note) -> Dataset:
    by_series: dict[str, list[Dataset]] = {}
    for each in note.rejected:
        by_series.setdefault(each.series_instance_uid, []).append(_sop_reference(each))
    study = Dataset()
    study.StudyInstanceUID = note.study_instance_uid
    study.ReferencedSeriesSequence = []
    for series_instance_uid, instances in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = series_instance_uid
        series.ReferencedSOPSequence = instances
        study.ReferencedSeriesSequence.append(series)
    return study


def _put_content(made: Dataset, note: Note) -> None:
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = "2010"
    made.ValueType = "CONTAINER"
    made.ConceptNameCodeSequence = [_code("113001", "Rejected for Quality Reasons")]
    made.ContinuityOfContent = "SEPARATE"
    made.ContentTemplateSequence = [template]
    observer = _item("HAS OBS CONTEXT", "CODE", _code("121005", "Observer Type"))
    observer.ConceptCodeSequence = [_code("121007", "Device")]
    device = _item("HAS OBS CONTEXT", "UIDREF", _code("121012", "Device Observer UID"))
    device.UID = DEVICE_UID
    description = _item("CONTAINS", "TEXT", _code("113012", "Key Object Description"))
    description.TextValue = _DESCRIPTION
    made.ContentSequence = [observer, device, description]
    for each in note.rejected:
        item = Dataset()
        item.RelationshipType = "CONTAINS"
        item.ValueType = "IMAGE" if each.sop_class_uid in _IMAGES else "COMPOSITE"
        item.ReferencedSOPSequence = [_sop_reference(each)]
        made.ContentSequence.append(item)


def _item(relationship: str, value_type: str, concept: Dataset) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [concept]
    return item


def _sop_reference(rejected: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = rejected.sop_class_uid
    item.ReferencedSOPInstanceUID = rejected.sop_instance_uid
    return item


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item


def _written(made: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = _IMPLEMENTATION_VERSION_NAME
    made.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()
