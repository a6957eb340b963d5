"""A model reads the instances of a study: pictures in, one probability per class out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from pydicom import Dataset

from imaging_pixels.render import Picture
from inference_worker.aggregation import aggregate
from inference_worker.cell_grid import CellGrid
from inference_worker.decoding import KeptInstance, Piece, Unreadable, decoded
from inference_worker.heatmap import Float32Array
from inference_worker.input_quality import Refused
from message_contracts.inference import InputSummary
from message_contracts.model_description import ModelDescription
from message_contracts.study_selection import Reads
from service_runtime.errors import PermanentError

BATCH = 16
"""Pictures of a study that the model is given at once."""

MOST_TELLING = 9
"""Of the frames that a finding rests on, so many are shown at most."""

_REFERENCED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "NumberOfFrames")


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

    @property
    def grid(self) -> CellGrid | None:
        """Where the cells of ``cam`` lie in the picture; ``None``: they divide it evenly."""

    @property
    def refusal(self) -> str | None:
        """Why the picture is not what the network learned from; ``None`` where it is."""

    @property
    def distance(self) -> float | None:
        """From what the network learned from; ``None`` where the model has no domain."""


Predict = Callable[[Picture], Sequence[FramePrediction]]
"""Takes ``[n, rows, columns]`` gray or ``[n, rows, columns, 3]`` RGB in the network's geometry."""


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
    """In the order of the model's classes."""
    telling: tuple[ReadFrame, ...]
    """Of the frames that these rest on, those that speak most for the foremost class; at most
    `MOST_TELLING`, the first of them first."""
    sources: tuple[Dataset, ...]
    """The instances that were read; of each, what a reference to it needs."""
    read_frames: tuple[tuple[int, ...], ...]
    """Of each source, the frames that were read, counted from 0."""
    unreadable: dict[str, str]
    """SOP Instance UID to reason."""
    refused: dict[str, str]
    """SOP Instance UID to the reason why the model would not read a frame of it."""

    places: dict[str, int]
    """Of the SOP Instance UIDs by which the instances were asked for, their place in ``sources``;
    a source may carry its own with other padding."""
    given: InputSummary | None = None
    """What the network was given; the study is watched for drift by it."""

    @property
    def foremost(self) -> int:
        """The most probable class."""
        return int(np.argmax(self.probabilities))

    @property
    def explained(self) -> ReadFrame:
        """The frame that the finding rests on before all others."""
        return self.telling[0]


@dataclass
class _ReadInstance:
    """What has been read of one instance so far."""

    source: Dataset
    frames: list[ReadFrame] = field(default_factory=list)


def read_study(
    instances: Iterable[KeptInstance], model: ModelDescription, predict: Predict, pool: Executor
) -> StudyReading:
    """Have the model read every frame that can be read, and bring its answers together.

    Of views each instance counts the same, however many frames it has; of slices each frame does.
    Frames that cannot be judged, or are not the model's business, count for nothing. ``pool``
    reads and decodes ahead of the model; no more is held than that and the answers.

    Raises
    ------
    UnreadableStudy
        No instance could be read; says why of the first.
    Refused
        What could be read, the model refused; says why of the first.
    """
    reading = _Reading(model, predict)
    pieces = decoded(instances, model.input, pool)
    try:
        for piece in pieces:
            reading.take(piece)
        reading.predict_waiting()
    finally:
        # A generator that is left unfinished would go on holding what it decoded ahead.
        _close(pieces)
    return reading.ended()


def _close(pieces: Iterator[Piece | Unreadable]) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


class _Reading:
    def __init__(self, model: ModelDescription, predict: Predict) -> None:
        self._model = model
        self._predict = predict
        self._read: dict[str, _ReadInstance] = {}
        self._waiting: list[tuple[KeptInstance, int, Picture]] = []
        self._unreadable: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._given: list[tuple[float, float, float | None]] = []

    def take(self, piece: Piece | Unreadable) -> None:
        """Take what was decoded; have the model read whenever there is a batch."""
        uid = piece.instance.sop_instance_uid
        if isinstance(piece, Unreadable):
            self._unreadable[uid] = piece.reason
            self._refused.pop(uid, None)
            self._read.pop(uid, None)
            self._waiting = [each for each in self._waiting if each[0] is not piece.instance]
            return
        if uid not in self._read:
            self._read[uid] = _ReadInstance(_for_reference(piece.source))
        for number, picture, fault in zip(piece.frames, piece.pictures, piece.faults, strict=True):
            if fault is not None:
                self._refused.setdefault(uid, fault)
                continue
            if self._waiting and self._waiting[0][2].ndim != picture.ndim:
                self.predict_waiting()
            self._waiting.append((piece.instance, number, picture))
            if len(self._waiting) == BATCH:
                self.predict_waiting()

    def predict_waiting(self) -> None:
        """Have the model read what waits for its batch to be full."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        predictions = self._predict(np.stack([picture for _, _, picture in waiting]))
        for (instance, number, picture), prediction in zip(waiting, predictions, strict=True):
            uid = instance.sop_instance_uid
            self._given.append((*_gray_levels(picture), prediction.distance))
            if prediction.refusal is not None:
                self._refused.setdefault(uid, prediction.refusal)
            else:
                self._read[uid].frames.append(ReadFrame(instance, number, prediction))

    def ended(self) -> StudyReading:
        """Return what all of it says."""
        read = [each for each in self._read.values() if each.frames]
        if not read:
            if self._refused:
                reason = _why_refused(list(self._refused.values()), len(self._unreadable))
                raise Refused(reason, self._summary())
            raise UnreadableStudy(_why_nothing(list(self._unreadable.values())))
        groups = [each.frames for each in read]
        if self._model.reads.what is Reads.SLICES:
            groups = [[frame] for frames in groups for frame in frames]
        together = aggregate(
            [
                np.mean([frame.prediction.probabilities for frame in frames], axis=0)
                for frames in groups
            ],
            self._model,
        )
        rests_on = [frame for place in together.rests_on for frame in groups[place]]
        foremost = int(np.argmax(together.probabilities))
        return StudyReading(
            probabilities=together.probabilities,
            telling=_most_telling(rests_on, foremost),
            sources=tuple(each.source for each in read),
            read_frames=tuple(tuple(frame.frame for frame in each.frames) for each in read),
            unreadable=self._unreadable,
            refused=self._refused,
            places={
                each.frames[0].instance.sop_instance_uid: place for place, each in enumerate(read)
            },
            given=self._summary(),
        )

    def _summary(self) -> InputSummary | None:
        if not self._given:
            return None
        brightness, contrast, distance = self._given[len(self._given) // 2]
        return InputSummary(
            picture_count=len(self._given),
            brightness=round(brightness, 2),
            contrast=round(contrast, 2),
            domain_distance=round(distance, 6)
            if distance is not None and np.isfinite(distance)
            else None,
        )


def _gray_levels(picture: Picture) -> tuple[float, float]:
    """Return mean and standard deviation, of every fourth row and column: that is enough."""
    some = picture[::4, ::4]
    return float(some.mean()), float(some.std())


def _for_reference(source: Dataset) -> Dataset:
    """Return what a reference to an instance needs of it."""
    needed = Dataset()
    for keyword in _REFERENCED:
        if keyword in source:
            # Else pydicom would convert an empty one, and fail where there is no such VR.
            needed[keyword] = source.get_item(keyword, keep_deferred=True)
    return needed


def _most_telling(frames: Sequence[ReadFrame], foremost: int) -> tuple[ReadFrame, ...]:
    """Return the frames whose heat maps are shown, the one that tells most first.

    A mean may have a foremost class that is foremost in no frame: then the heat map explains what
    is foremost in the frame where the study's class is most probable, and its legend says so.
    """

    def probability(read: ReadFrame) -> float:
        return read.prediction.probabilities[foremost]

    explaining = [read for read in frames if read.foremost == foremost]
    if not explaining:
        return (max(frames, key=probability),)
    return tuple(sorted(explaining, key=probability, reverse=True)[:MOST_TELLING])


def _why_refused(reasons: Sequence[str], unreadable: int) -> str:
    if len(reasons) == 1 and not unreadable:
        return reasons[0]
    return (
        f"The model reads none of {len(reasons) + unreadable} instances. Of the first: {reasons[0]}"
    )


def _why_nothing(reasons: Sequence[str]) -> str:
    if not reasons:
        return "None of the instances is in the store."
    if len(reasons) == 1:
        return f"The instance cannot be read: {reasons[0]}."
    return f"None of the {len(reasons)} instances can be read; the first because {reasons[0]}."
