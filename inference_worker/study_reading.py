"""A model reads the instances of a study: pictures in, one probability per class out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

import cv2
import numpy as np
import pydicom
from pydicom import Dataset

from imaging_pixels.decode import UndecodablePixels, frame_count
from imaging_pixels.inflation import check_inflated_size
from imaging_pixels.render import Picture, render
from inference_worker.heatmap import Float32Array
from inference_worker.preprocessing import to_network_geometry
from message_contracts.model_description import ModelDescription
from service_runtime.errors import PermanentError

MOST_FRAMES = 32
"""Of a longer multi-frame instance, so many frames are read, evenly spaced."""

BATCH = 16
_RGB_DIMENSIONS = 3


class UnreadableStudy(PermanentError):
    """A model cannot read any instance of the study; the text says why and names no patient."""


class FramePrediction(Protocol):
    """What the network makes of one picture."""

    @property
    def probabilities(self) -> tuple[float, ...]:
        """In the order of the model's classes."""

    @property
    def cam(self) -> Float32Array:
        """Grad-CAM of the most probable class, ``[rows, columns]``, 0 to 1."""


Predict = Callable[[Picture], Sequence[FramePrediction]]
"""Takes ``[n, rows, columns]`` gray or ``[n, rows, columns, 3]`` RGB in the network's geometry."""


@dataclass(frozen=True)
class KeptInstance:
    """One instance of the study, and how to get its Part 10 file."""

    sop_instance_uid: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ReadFrame:
    """A frame that the model has read."""

    instance: KeptInstance
    frame: int
    """Counted from 0."""
    prediction: FramePrediction

    @property
    def foremost(self) -> int:
        """The class that is most probable in this frame, and that its heat map explains."""
        return int(np.argmax(self.prediction.probabilities))


@dataclass(frozen=True)
class StudyReading:
    """What the model makes of the study."""

    probabilities: tuple[float, ...]
    """In the order of the model's classes: the mean over the instances that could be read."""
    explained: ReadFrame
    sources: tuple[Dataset, ...]
    """The instances that were read, without their pixels."""
    read_frames: tuple[tuple[int, ...], ...]
    """Of each source, the frames that were read, counted from 0."""
    unreadable: dict[str, str]
    """SOP Instance UID to reason."""

    @property
    def foremost(self) -> int:
        """The most probable class."""
        return int(np.argmax(self.probabilities))


def parse(content: bytes) -> Dataset:
    """Read a Part 10 file, whatever state its data set is in.

    Raises
    ------
    UndecodablePixels
        It cannot be parsed as far as its pixels, or would inflate to more than there is memory.
    """
    check_inflated_size(content)
    try:
        return pydicom.dcmread(BytesIO(content), force=True)
    except Exception as error:
        # Old and broken data sets fail in many ways, and the texts may quote them.
        raise UndecodablePixels("its data set cannot be parsed") from error


def read_study(
    instances: Iterable[KeptInstance], model: ModelDescription, predict: Predict
) -> StudyReading:
    """Have the model read every instance that can be read.

    Each instance counts the same, however many frames it has. The heat map is that of the frame
    in which the study's foremost class is most probable, among those where it is foremost.

    Raises
    ------
    UnreadableStudy
        No instance could be read; says why of the first.
    """
    sources, per_instance, unreadable = [], [], {}
    count = 0
    for instance in instances:
        count += 1
        try:
            source = parse(instance.read())
            frames = _read_frames(instance, source, model, predict)
        except UndecodablePixels as error:
            unreadable[instance.sop_instance_uid] = str(error)
            continue
        for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
            if keyword in source:
                del source[keyword]
        sources.append(source)
        per_instance.append(frames)
    if not per_instance:
        raise UnreadableStudy(_why_nothing(count, list(unreadable.values())))
    means = [
        np.mean([read.prediction.probabilities for read in frames], axis=0)
        for frames in per_instance
    ]
    probabilities = np.clip(np.mean(means, axis=0), 0.0, 1.0)
    return StudyReading(
        probabilities=tuple(float(each) for each in probabilities),
        explained=_most_telling(
            [read for frames in per_instance for read in frames], int(np.argmax(probabilities))
        ),
        sources=tuple(sources),
        read_frames=tuple(tuple(read.frame for read in frames) for frames in per_instance),
        unreadable=unreadable,
    )


def frames_to_read(count: int) -> tuple[int, ...]:
    """Return which frames of an instance are read, counted from 0."""
    if count <= MOST_FRAMES:
        return tuple(range(count))
    return tuple(int(each) for each in np.linspace(0, count - 1, MOST_FRAMES).round())


def _read_frames(
    instance: KeptInstance, source: Dataset, model: ModelDescription, predict: Predict
) -> list[ReadFrame]:
    numbers = frames_to_read(frame_count(source))
    predictions: list[FramePrediction] = []
    for first in range(0, len(numbers), BATCH):
        pictures = [
            _for_network(render(source, number), model) for number in numbers[first : first + BATCH]
        ]
        predictions += predict(np.stack(pictures))
    return [
        ReadFrame(instance, number, prediction)
        for number, prediction in zip(numbers, predictions, strict=True)
    ]


def _for_network(picture: Picture, model: ModelDescription) -> Picture:
    if model.input.channels == 1 and picture.ndim == _RGB_DIMENSIONS:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return to_network_geometry(picture, model.input.rows, model.input.columns)


def _most_telling(frames: Sequence[ReadFrame], foremost: int) -> ReadFrame:
    """Return the frame whose heat map is shown.

    A mean may have a foremost class that is foremost in no frame: then the heat map explains what
    is foremost in the frame where the study's class is most probable, and its legend says so.
    """
    explaining = [read for read in frames if read.foremost == foremost]
    return max(explaining or frames, key=lambda read: read.prediction.probabilities[foremost])


def _why_nothing(count: int, reasons: Sequence[str]) -> str:
    if not reasons:
        return "None of the instances is in the store."
    if count == 1:
        return f"The instance cannot be read: {reasons[0]}."
    return f"None of the {count} instances can be read; the first because {reasons[0]}."
