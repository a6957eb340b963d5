"""What the model found, as a Measurement Report (PS3.16 TID 1500) in a Comprehensive 3D SR.

It is the model's word alone: complete, unverified, observed by a device. What the doctor concludes
stands in the report and never here.
"""

from collections.abc import Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    SourceImageForMeasurement,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from highdicom.sr.value_types import ContentSequence
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from imaging_pixels.decode import frame_count
from inference_worker.copied_attributes import put
from inference_worker.result_attributes import (
    MANUFACTURER,
    Kind,
    Reading,
    ResultObject,
    begin,
    can_be_referenced,
    finish,
)
from message_contracts.coding import CodedConcept
from message_contracts.inference import UNCERTAIN, ClassProbability

_IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_UNCERTAIN = Code("64957009", "SCT", UNCERTAIN)
_PROBABILITY = Code("122157", "DCM", "Probability")
_NO_UNITS = Code("1", "UCUM", "no units")


def make(
    sources: Sequence[Dataset],
    reading: Reading,
    read_frames: Sequence[Sequence[int]],
    telling: Sequence[tuple[Dataset, int]] = (),
) -> ResultObject:
    """Return the report of a reading of ``sources``, the first of which names the patient.

    ``read_frames`` has, for each source, the frames that the model read, counted from 0. The
    probability of the foremost class is inferred from the ``telling`` frames before all others.
    """
    made, left_out = begin(sources[0], reading, Kind.STRUCTURED_REPORT, Comprehensive3DSRStorage)
    made.Modality = "SR"
    made.CompletionFlag = "COMPLETE"
    made.VerificationFlag = "UNVERIFIED"
    made.PreliminaryFlag = "FINAL"
    # Type 2: whoever ordered and performed the procedure is known to the archive, not to us.
    made.PerformedProcedureCodeSequence = []
    made.ReferencedPerformedProcedureStepSequence = []
    referenced = [
        (source, frames)
        for source, frames in zip(sources, read_frames, strict=True)
        if can_be_referenced(source)
    ]
    if referenced:
        made.CurrentRequestedProcedureEvidenceSequence = [
            _evidence([source for source, _ in referenced], reading)
        ]
    if len(referenced) < len(sources):
        left_out += ("CurrentRequestedProcedureEvidenceSequence",)
    inferred_from = [each for each in telling if can_be_referenced(each[0])]
    [root] = _measurement_report(reading, referenced, inferred_from)
    for element in root:
        made.add(element)
    return finish(made, left_out)


def _measurement_report(
    reading: Reading,
    referenced: Sequence[tuple[Dataset, Sequence[int]]],
    telling: Sequence[tuple[Dataset, int]],
) -> MeasurementReport:
    model = reading.model
    observer = ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=model.device_uid,
            name=model.name,
            manufacturer_name=MANUFACTURER,
            model_name=f"{model.name} {model.version}",
        ),
    )
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=reading.uid(Kind.STRUCTURED_REPORT, "tracking"),
            identifier=f"{model.name} {model.version}",
        ),
        finding_type=_finding(reading),
        algorithm_id=AlgorithmIdentification(
            name=model.name,
            version=model.version,
            manufacturer=MANUFACTURER,
            parameters=[
                f"weights_sha256={reading.weights_sha256}",
                f"uncertain_below={model.uncertain_below:g}",
            ],
        ),
        measurements=[
            _probability(each, () if place else telling)
            for place, each in enumerate(reading.probabilities)
        ],
        source_images=[_source_image(source, frames) for source, frames in referenced],
    )
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=_IMAGING_PROCEDURE,
        imaging_measurements=[group],
    )


def _finding(reading: Reading) -> Code:
    return _UNCERTAIN if reading.uncertain else _code(reading.probabilities[0].code)


def _code(concept: CodedConcept) -> Code:
    return Code(concept.value, concept.scheme_designator, concept.meaning)


def _probability(
    of_class: ClassProbability, inferred_from: Sequence[tuple[Dataset, int]]
) -> Measurement:
    """Return a class's probability (TID 300), with the class as a modifier of its name."""
    images = [
        SourceImageForMeasurement(
            referenced_sop_class_uid=str(source.SOPClassUID),
            referenced_sop_instance_uid=str(source.SOPInstanceUID),
            referenced_frame_numbers=[frame + 1] if frame_count(source) > 1 else None,
        )
        for source, frame in inferred_from
    ]
    measurement = Measurement(
        name=_PROBABILITY,
        value=round(of_class.probability, 6),
        unit=_NO_UNITS,
        referenced_images=images or None,
    )
    modifier = CodeContentItem(
        name=codes.DCM.Finding,
        value=_code(of_class.code),
        relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
    [item] = measurement
    item.ContentSequence = ContentSequence([modifier, *item.get("ContentSequence", [])])
    return measurement


def _source_image(source: Dataset, frames: Sequence[int]) -> SourceImageForMeasurementGroup:
    is_part = frame_count(source) > 1
    return SourceImageForMeasurementGroup(
        referenced_sop_class_uid=str(source.SOPClassUID),
        referenced_sop_instance_uid=str(source.SOPInstanceUID),
        referenced_frame_numbers=[frame + 1 for frame in frames] if is_part else None,
    )


def _evidence(sources: Sequence[Dataset], reading: Reading) -> Dataset:
    """Return the study's item of the evidence sequence (PS3.3 §C.17.2.1)."""
    by_series: dict[str, list[Dataset]] = {}
    for source in sources:
        instance = Dataset()
        instance.ReferencedSOPClassUID = source.SOPClassUID
        instance.ReferencedSOPInstanceUID = source.SOPInstanceUID
        by_series.setdefault(str(source.SeriesInstanceUID), []).append(instance)
    study = Dataset()
    put(study, "StudyInstanceUID", [reading.study_instance_uid])
    study.ReferencedSeriesSequence = []
    for series_instance_uid, instances in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = series_instance_uid
        series.ReferencedSOPSequence = instances
        study.ReferencedSeriesSequence.append(series)
    return study
