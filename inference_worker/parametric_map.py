"""The heat map itself, as numbers over the source's pixels: a Parametric Map (PS3.3 §A.75).

A workstation can lay it over the series, as it lies in the patient. Each frame has rows, columns,
spacing, position and orientation of the frame that it explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import ParametricMapStorage
from pydicom.valuerep import format_number_as_ds

from imaging_pixels.decode import frame_count
from inference_worker.cell_grid import CellGrid, Float32Array
from inference_worker.lossy_compression import describe_compression
from inference_worker.plane_geometry import Plane, plane_of
from inference_worker.result_attributes import (
    NOT_FOR_PRIMARY_DIAGNOSIS,
    Kind,
    Reading,
    ResultObject,
    begin,
    can_be_referenced,
    code_item,
    finish,
    put_laterality,
)
from message_contracts.coding import CodedConcept
from message_contracts.model_description import ModelClass

_MODALITIES = frozenset({"CT", "MR"})
_IMAGE_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"]
_NO_UNITS = CodedConcept(value="1", scheme_designator="UCUM", meaning="no units")
_FINDING = CodedConcept(value="121071", scheme_designator="DCM", meaning="Finding")
_ALGORITHM_NAME = CodedConcept(value="111001", scheme_designator="DCM", meaning="Algorithm Name")
_ALGORITHM_VERSION = CodedConcept(
    value="111003", scheme_designator="DCM", meaning="Algorithm Version"
)
_DERIVATION = CodedConcept(
    value="112187", scheme_designator="DCM", meaning="Unspecified method of calculation"
)
_SOURCE_IMAGE = CodedConcept(
    value="121322",
    scheme_designator="DCM",
    meaning="Source image for image processing operation",
)


@dataclass(frozen=True)
class MappedFrame:
    """A frame that has a heat map, and where both lie."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    """Counted from 1, of a multi-frame instance."""
    rows: int
    columns: int
    plane: Plane
    cam: Float32Array
    grid: CellGrid | None

    def fits(self, other: "MappedFrame") -> bool:
        """Tell whether both can be frames of one map."""
        return (
            self.rows == other.rows
            and self.columns == other.columns
            and self.plane.frame_of_reference_uid == other.plane.frame_of_reference_uid
        )


def mapped_frame(
    source: Dataset, frame: int, cam: Float32Array, grid: CellGrid | None
) -> MappedFrame | None:
    """Return what a map needs of a frame, counted from 0.

    ``None`` where it is no CT or MR, or does not say where it lies: there is nothing to lay over.
    """
    plane = plane_of(source, frame)
    # Where it has several values against the Standard, they come as a list, which no set can hold.
    modality = str(source.get("Modality"))
    if plane is None or modality not in _MODALITIES or not can_be_referenced(source):
        return None
    return MappedFrame(
        series_instance_uid=str(source.SeriesInstanceUID),
        sop_class_uid=str(source.SOPClassUID),
        sop_instance_uid=str(source.SOPInstanceUID),
        frame_number=frame + 1 if frame_count(source) > 1 else None,
        rows=int(source.Rows),
        columns=int(source.Columns),
        plane=plane,
        cam=cam,
        grid=grid,
    )


def make(
    source: Dataset, frames: Sequence[MappedFrame], reading: Reading, explained: ModelClass
) -> ResultObject:
    """Return the map of those ``frames`` that fit the first, in the order given.

    Those of other rows, columns or frame of reference cannot stand in one map with it. ``source``
    is the instance of the first; ``explained`` is the class that spoke.
    """
    frames = [each for each in frames if each.fits(frames[0])]
    first = frames[0]
    made, left_out = begin(source, reading, Kind.PARAMETRIC_MAP, ParametricMapStorage)
    made.Modality = "OT"
    made.ImageType = _IMAGE_TYPE
    made.FrameOfReferenceUID = first.plane.frame_of_reference_uid
    made.PositionReferenceIndicator = ""
    made.ContentLabel = "GRAD_CAM"
    made.ContentDescription = NOT_FOR_PRIMARY_DIAGNOSIS
    made.ContentCreatorName = ""
    made.ContentQualification = "RESEARCH"
    made.BurnedInAnnotation = "NO"
    made.RecognizableVisualFeatures = "NO"
    made.PixelPresentation = "MONOCHROME"
    made.PresentationLUTShape = "IDENTITY"
    made.LossyImageCompression = "00"
    describe_compression(made, source)
    put_laterality(made, source)
    made.AcquisitionContextSequence = []
    made.ReferencedSeriesSequence = _referenced_series(frames)
    _set_dimensions(made, reading)
    shared = _shared(reading, explained)
    per_frame = [_of_frame(each, number) for number, each in enumerate(frames, start=1)]
    _put_planes(shared, per_frame, [each.plane for each in frames])
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = per_frame
    _set_pixels(made, frames)
    return finish(made, left_out)


def _set_dimensions(made: Dataset, reading: Reading) -> None:
    """Have frames counted by where they lie (PS3.3 §C.7.6.17)."""
    uid = reading.uid(Kind.PARAMETRIC_MAP, "dimensions")
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    made.DimensionOrganizationSequence = [organization]
    index = Dataset()
    index.DimensionOrganizationUID = uid
    index.DimensionIndexPointer = Tag("ImagePositionPatient")
    index.FunctionalGroupPointer = Tag("PlanePositionSequence")
    index.DimensionDescriptionLabel = "Image Position Patient"
    made.DimensionIndexSequence = [index]


def _put_planes(shared: Dataset, per_frame: Sequence[Dataset], planes: Sequence[Plane]) -> None:
    """Say once what all planes have alike, otherwise with each frame (PS3.3 §C.7.6.16)."""
    for keyword, item_of in (
        ("PixelMeasuresSequence", _measures),
        ("PlaneOrientationSequence", _orientation),
    ):
        items = [item_of(plane) for plane in planes]
        is_alike = all(each == items[0] for each in items)
        for groups, item in zip([shared] if is_alike else per_frame, items, strict=False):
            setattr(groups, keyword, [item])


def _measures(plane: Plane) -> Dataset:
    measures = Dataset()
    measures.PixelSpacing = _decimals(plane.spacing)
    if plane.thickness_mm is not None:
        measures.SliceThickness = format_number_as_ds(plane.thickness_mm)
    return measures


def _orientation(plane: Plane) -> Dataset:
    orientation = Dataset()
    orientation.ImageOrientationPatient = _decimals(plane.orientation)
    return orientation


def _shared(reading: Reading, explained: ModelClass) -> Dataset:
    groups = Dataset()
    frame_type = Dataset()
    frame_type.FrameType = _IMAGE_TYPE
    groups.ParametricMapFrameTypeSequence = [frame_type]
    transformation = Dataset()
    transformation.RescaleIntercept, transformation.RescaleSlope = "0", "1"
    transformation.RescaleType = "US"
    groups.PixelValueTransformationSequence = [transformation]
    window = Dataset()
    window.WindowCenter, window.WindowWidth = "0.5", "1"
    groups.FrameVOILUTSequence = [window]
    groups.RealWorldValueMappingSequence = [_meaning(reading, explained)]
    return groups


def _meaning(reading: Reading, explained: ModelClass) -> Dataset:
    """Say what the numbers are: 0 to 1, for which class, by which algorithm."""
    mapping = Dataset()
    mapping.LUTLabel = "GRAD_CAM"
    mapping.LUTExplanation = f"Grad-CAM of {explained.label}"[:64]
    mapping.MeasurementUnitsCodeSequence = [code_item(_NO_UNITS)]
    mapping.DoubleFloatRealWorldValueFirstValueMapped = 0.0
    mapping.DoubleFloatRealWorldValueLastValueMapped = 1.0
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = 0.0, 1.0
    finding = _content_item("CODE", _FINDING)
    finding.ConceptCodeSequence = [code_item(explained.code)]
    name, version = (
        _content_item("TEXT", _ALGORITHM_NAME),
        _content_item("TEXT", _ALGORITHM_VERSION),
    )
    name.TextValue, version.TextValue = reading.model.name, reading.model.version
    mapping.QuantityDefinitionSequence = [finding, name, version]
    return mapping


def _content_item(value_type: str, concept: CodedConcept) -> Dataset:
    item = Dataset()
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [code_item(concept)]
    return item


def _of_frame(mapped: MappedFrame, number: int) -> Dataset:
    groups = Dataset()
    content = Dataset()
    content.DimensionIndexValues = [number]
    groups.FrameContentSequence = [content]
    position = Dataset()
    position.ImagePositionPatient = _decimals(mapped.plane.position)
    groups.PlanePositionSequence = [position]
    reference = _reference(mapped)
    if mapped.frame_number is not None:
        reference.ReferencedFrameNumber = mapped.frame_number
    reference.PurposeOfReferenceCodeSequence = [code_item(_SOURCE_IMAGE)]
    derivation = Dataset()
    derivation.SourceImageSequence = [reference]
    derivation.DerivationDescription = "Grad-CAM"
    derivation.DerivationCodeSequence = [code_item(_DERIVATION)]
    groups.DerivationImageSequence = [derivation]
    return groups


def _referenced_series(frames: Sequence[MappedFrame]) -> list[Dataset]:
    by_series: dict[str, dict[str, Dataset]] = {}
    for each in frames:
        instances = by_series.setdefault(each.series_instance_uid, {})
        instances[each.sop_instance_uid] = _reference(each)
    found = []
    for uid, instances in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedInstanceSequence = list(instances.values())
        found.append(series)
    return found


def _reference(mapped: MappedFrame) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = mapped.sop_class_uid
    reference.ReferencedSOPInstanceUID = mapped.sop_instance_uid
    return reference


def _set_pixels(made: Dataset, frames: Sequence[MappedFrame]) -> None:
    """Write the Floating Point Image Pixel module (PS3.3 §C.7.6.24)."""
    rows, columns = frames[0].rows, frames[0].columns
    made.NumberOfFrames = str(len(frames))
    made.Rows, made.Columns, made.SamplesPerPixel = rows, columns, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = 32
    made.FloatPixelData = b"".join(
        (each.grid or CellGrid.even(*each.cam.shape))
        .over(each.cam, rows, columns)
        .astype(np.dtype("<f4"))
        .tobytes()
        for each in frames
    )


def _decimals(numbers: Sequence[float]) -> list[str]:
    return [format_number_as_ds(each) for each in numbers]
