"""What is made of a reading: pictures, Secondary Capture and Structured Report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from pydicom import Dataset

from imaging_pixels.render import Picture, render
from inference_worker import parametric_map, secondary_capture, structured_report
from inference_worker.decoding import parse
from inference_worker.heatmap import Heatmap, Legend, draw_heatmap
from inference_worker.parametric_map import MappedFrame
from inference_worker.partial_reading import not_read, statement
from inference_worker.plane_geometry import pixel_aspect
from inference_worker.result_attributes import Reading, ResultObject
from inference_worker.study_reading import FramePrediction, Predict, ReadFrame, StudyReading
from message_contracts.inference import UNCERTAIN, ClassProbability, InferenceRequested
from message_contracts.model_description import ModelDescription

Explain = Callable[[str, Picture, int], Sequence[FramePrediction]]
"""Takes a Study Instance UID, pictures of that study as `Predict` does, and the place of the class
that is to be explained."""

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
    explain: Explain | None = None
    """Explains a class that somebody asks for; ``None``: it explains the most probable one only."""

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
    parametric_map: ResultObject | None
    """Of the frames that matter; ``None`` where it is not wanted, or they do not say where they
    lie."""


def make_results(
    request: InferenceRequested,
    requested_at: datetime,
    time_zone: tzinfo,
    model: LoadedModel,
    study: StudyReading,
    known_as: Mapping[str, str] | None = None,
) -> Results:
    """Draw the heat maps and make the result objects; of the same reading, the same bytes.

    ``known_as`` are the patient and the order by keyword, where the sources do not agree on them.
    """
    reading = replace(_reading(request, requested_at, time_zone, model, study), known_as=known_as)
    drawn = _draw(reading, study, mapped=request.parametric_map)
    telling = [(_source_of(study, explained), explained.frame) for explained in study.telling]
    sources, read_frames = _first_the_explained(study, drawn.source)
    return Results(
        reading,
        drawn.heatmap,
        tuple(drawn.captures),
        structured_report.make(
            sources,
            reading,
            read_frames,
            telling,
            statement(not_read(study.unreadable, study.refused)),
        ),
        _parametric_map(reading, study, drawn),
    )


@dataclass
class _Drawn:
    """What was drawn of the frames that matter."""

    source: Dataset
    """The instance that tells most."""
    heatmap: Heatmap
    """Its heat map."""
    captures: list[ResultObject]
    mapped: list[MappedFrame | None]
    """Empty where they are not wanted."""


def _draw(reading: Reading, study: StudyReading, *, mapped: bool) -> _Drawn:
    classes = reading.model.classes
    drawn: _Drawn | None = None
    held: tuple[str, Dataset] | None = None
    for number, explained in enumerate(study.telling, start=1):
        uid = explained.instance.sop_instance_uid
        if held is None or held[0] != uid:
            held = (uid, parse(explained.instance.read()))
        source, frame, prediction = held[1], explained.frame, explained.prediction
        label = classes[explained.foremost].label
        heatmap = draw_heatmap(
            render(source, frame),
            prediction.cam,
            Legend(
                finding=UNCERTAIN if reading.uncertain else reading.probabilities[0].label,
                explained_class=label,
                probability=study.probabilities[explained.foremost],
                model=f"{reading.model.name} {reading.model.version}",
            ),
            prediction.grid,
            pixel_aspect(source, frame),
        )
        drawn = drawn or _Drawn(source, heatmap, [], [])
        drawn.captures.append(
            secondary_capture.make(source, heatmap.capture, reading, frame, number, label)
        )
        if mapped:
            drawn.mapped.append(
                parametric_map.mapped_frame(source, frame, prediction.cam, prediction.grid)
            )
    if drawn is None:
        raise ValueError("a reading rests on one frame at least")
    return drawn


def _parametric_map(reading: Reading, study: StudyReading, drawn: _Drawn) -> ResultObject | None:
    frames = [each for each in drawn.mapped if each is not None]
    if not frames or drawn.mapped[0] is None:
        return None
    explained = reading.model.classes[study.explained.foremost]
    return parametric_map.make(drawn.source, frames, reading, explained)


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
