"""The content tree of a report as highdicom's classes make it, which check it by the templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

from inference_worker.result_attributes import MANUFACTURER, Kind, Reading

Frames = tuple[Dataset, Sequence[int]]


def content_tree(reading: Reading, referenced: Sequence[Frames], telling: Sequence[Frames]) -> Any:
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
    foremost = _code(reading.probabilities[0].code)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=reading.uid(Kind.STRUCTURED_REPORT, "tracking"),
            identifier=f"{model.name} {model.version}",
        ),
        finding_type=Code("64957009", "SCT", "Uncertain") if reading.uncertain else foremost,
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
            _measurement(each, () if place else telling)
            for place, each in enumerate(reading.probabilities)
        ],
        source_images=[_image(SourceImageForMeasurementGroup, *each) for each in referenced],
    )
    [root] = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=Code("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[group],
    )
    return root


def _measurement(of_class: Any, inferred_from: Sequence[Frames]) -> Measurement:
    images = [_image(SourceImageForMeasurement, *each) for each in inferred_from]
    measurement = Measurement(
        name=Code("122157", "DCM", "Probability"),
        value=round(of_class.probability, 6),
        unit=Code("1", "UCUM", "no units"),
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


def _image(kind: Any, source: Dataset, frames: Sequence[int]) -> Any:
    return kind(
        referenced_sop_class_uid=str(source.SOPClassUID),
        referenced_sop_instance_uid=str(source.SOPInstanceUID),
        referenced_frame_numbers=(
            [frame + 1 for frame in frames]
            if len(frames) < source.get("NumberOfFrames", 1)
            else None
        ),
    )


def _code(concept: Any) -> Code:
    return Code(concept.value, concept.scheme_designator, concept.meaning)
