"""What is made of a reading: pictures, Secondary Capture and Structured Report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from pydicom import Dataset

from imaging_pixels.render import render
from inference_worker import secondary_capture, structured_report
from inference_worker.decoding import parse
from inference_worker.heatmap import Heatmap, Legend, draw_heatmap
from inference_worker.plane_geometry import pixel_aspect
from inference_worker.result_attributes import Reading, ResultObject
from inference_worker.study_reading import Predict, ReadFrame, StudyReading
from message_contracts.inference import UNCERTAIN, ClassProbability, InferenceRequested
from message_contracts.model_description import ModelDescription

Reader = Callable[[str, bool], Predict]
"""Of a Study Instance UID, and of whether the study is urgent: what predicts its pictures."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to read."""

    description: ModelDescription
    weights_sha256: str
    predict: Predict
    reader: Reader | None = None
    """Where it matters whose pictures are predicted; ``None``: ``predict`` takes all."""
    close: Callable[[], None] = lambda: None
    """Lets go of what the model holds; what it is reading then fails and is tried again."""

    def predict_of(self, study_instance_uid: str, *, urgent: bool) -> Predict:
        """Return what predicts the pictures of one study."""
        if self.reader is None:
            return self.predict
        return self.reader(study_instance_uid, urgent)


@dataclass(frozen=True)
class Results:
    """What came of a reading, before anything is kept."""

    reading: Reading
    heatmap: Heatmap
    """Of the frame that tells most."""
    captures: tuple[ResultObject, ...]
    """Of the frames that matter, the one that tells most first."""
    report: ResultObject


def make_results(
    request: InferenceRequested,
    requested_at: datetime,
    time_zone: tzinfo,
    model: LoadedModel,
    study: StudyReading,
    known_as: Mapping[str, str] | None = None,
) -> Results:
    """Draw the heat maps and make the result objects; the same every time it is done.

    ``known_as`` are the patient and the order by keyword, where the sources do not agree on them.
    """
    reading = replace(_reading(request, requested_at, time_zone, model, study), known_as=known_as)
    header, heatmap, captures = _captures(reading, study)
    telling = [(_source_of(study, explained), explained.frame) for explained in study.telling]
    sources, read_frames = _first_the_explained(study, header)
    return Results(
        reading,
        heatmap,
        captures,
        structured_report.make(sources, reading, read_frames, telling),
    )


def _captures(
    reading: Reading, study: StudyReading
) -> tuple[Dataset, Heatmap, tuple[ResultObject, ...]]:
    """Return the instance that tells most, its heat map, and the captures of all that matter."""
    classes = reading.model.classes
    captures, first = [], None
    held: tuple[str, Dataset] | None = None
    for number, explained in enumerate(study.telling, start=1):
        uid = explained.instance.sop_instance_uid
        if held is None or held[0] != uid:
            held = (uid, parse(explained.instance.read()))
        source = held[1]
        label = classes[explained.foremost].label
        heatmap = draw_heatmap(
            render(source, explained.frame),
            explained.prediction.cam,
            Legend(
                finding=UNCERTAIN if reading.uncertain else reading.probabilities[0].label,
                explained_class=label,
                probability=study.probabilities[explained.foremost],
                model=f"{reading.model.name} {reading.model.version}",
            ),
            explained.prediction.grid,
            pixel_aspect(source, explained.frame),
        )
        captures.append(
            secondary_capture.make(source, heatmap.capture, reading, explained.frame, number, label)
        )
        first = first or (source, heatmap)
    if first is None:
        raise ValueError("a reading rests on one frame at least")
    return *first, tuple(captures)


def _source_of(study: StudyReading, explained: ReadFrame) -> Dataset:
    return study.sources[study.places[explained.instance.sop_instance_uid]]


def _first_the_explained(
    study: StudyReading, header: Dataset
) -> tuple[list[Dataset], list[tuple[int, ...]]]:
    """Return the sources and the frames read of each, that of the heat map whole, and first."""
    place = study.places[study.explained.instance.sop_instance_uid]
    sources, read_frames = list(study.sources), list(study.read_frames)
    del sources[place]
    return [header, *sources], [read_frames.pop(place), *read_frames]


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
