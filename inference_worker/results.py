"""What is made of a reading: pictures, Secondary Capture and Structured Report."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from imaging_pixels.render import render
from inference_worker import secondary_capture, structured_report
from inference_worker.heatmap import Heatmap, Legend, draw_heatmap
from inference_worker.result_attributes import Reading, ResultObject
from inference_worker.study_reading import Predict, StudyReading, parse
from message_contracts.inference import UNCERTAIN, ClassProbability, InferenceRequested
from message_contracts.model_description import ModelDescription


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to read."""

    description: ModelDescription
    weights_sha256: str
    predict: Predict


@dataclass(frozen=True)
class Results:
    """What came of a reading, before anything is kept."""

    reading: Reading
    heatmap: Heatmap
    capture: ResultObject
    report: ResultObject


def make_results(
    request: InferenceRequested,
    requested_at: datetime,
    time_zone: tzinfo,
    model: LoadedModel,
    study: StudyReading,
    known_as: Mapping[str, str] | None = None,
) -> Results:
    """Draw the heat map and make the result objects; the same every time it is done.

    ``known_as`` are the patient and the order by keyword, where the sources do not agree on them.
    """
    reading = replace(_reading(request, requested_at, time_zone, model, study), known_as=known_as)
    described, explained = model.description, study.explained
    source = parse(explained.instance.read())
    heatmap = draw_heatmap(
        render(source, explained.frame),
        explained.prediction.cam,
        Legend(
            finding=UNCERTAIN if reading.uncertain else reading.probabilities[0].label,
            explained_class=described.classes[explained.foremost].label,
            probability=study.probabilities[explained.foremost],
            model=f"{described.name} {described.version}",
        ),
    )
    return Results(
        reading,
        heatmap,
        secondary_capture.make(source, heatmap.overlay, reading, explained.frame),
        structured_report.make(study.sources, reading, study.read_frames),
    )


def _reading(
    request: InferenceRequested,
    requested_at: datetime,
    time_zone: tzinfo,
    model: LoadedModel,
    study: StudyReading,
) -> Reading:
    described = model.description
    probabilities = [
        ClassProbability(label=each.label, code=each.code, probability=probability)
        for each, probability in zip(described.classes, study.probabilities, strict=True)
    ]
    probabilities.sort(key=lambda each: -each.probability)
    return Reading(
        study_instance_uid=request.study_instance_uid,
        study_version=request.case_version,
        model=described,
        weights_sha256=model.weights_sha256,
        requested_at=requested_at,
        time_zone=time_zone,
        probabilities=tuple(probabilities),
        uncertain=probabilities[0].probability < described.uncertain_below,
    )
