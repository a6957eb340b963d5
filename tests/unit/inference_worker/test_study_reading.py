from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inference_worker.study_reading import (
    MOST_FRAMES,
    KeptInstance,
    StudyReading,
    UnreadableStudy,
    frames_to_read,
    read_study,
)
from message_contracts.model_description import NetworkInput
from tests.readings import a_model
from tests.synthetic_images import an_image, part10

MODEL = a_model()


@dataclass(frozen=True)
class Seen:
    """A prediction whose class is the brightness of the picture: dark, middle, bright."""

    probabilities: tuple[float, ...]
    cam: npt.NDArray[np.float32]


def by_brightness(batch: npt.NDArray[np.uint8]) -> Sequence[Seen]:
    assert batch.dtype == np.uint8
    assert batch.shape[1:3] == (32, 32)
    seen = []
    for picture in batch:
        level = float(picture.mean()) / 255
        weights = np.exp(-30 * (np.array([0.0, 0.5, 1.0]) - level) ** 2)
        share = tuple(float(each) for each in weights / weights.sum())
        seen.append(Seen(share, np.full((8, 8), level, np.float32)))
    return seen


def kept(uid: str, stored: Any, **how: Any) -> KeptInstance:
    content = part10(an_image(stored, SOPInstanceUID=uid, **how))
    return KeptInstance(uid, lambda: content)


def gray(level: int) -> npt.NDArray[np.uint8]:
    return np.full((20, 30), level, np.uint8)


def reading(*instances: KeptInstance) -> StudyReading:
    return read_study(instances, MODEL, by_brightness)


def test_one_instance_gives_its_probabilities() -> None:
    read = reading(kept("2.25.1", gray(255)))

    assert read.foremost == 2
    assert read.probabilities == pytest.approx(
        by_brightness(gray(255)[None, :1, :1].repeat(32, axis=1).repeat(32, axis=2))[
            0
        ].probabilities
    )
    assert [source.SOPInstanceUID for source in read.sources] == ["2.25.1"]
    assert "PixelData" not in read.sources[0]


def test_probabilities_are_the_mean_over_the_instances() -> None:
    both = reading(kept("2.25.1", gray(255)), kept("2.25.2", gray(0)))
    bright, dark = reading(kept("2.25.1", gray(255))), reading(kept("2.25.2", gray(0)))

    assert both.probabilities == pytest.approx(
        np.mean([bright.probabilities, dark.probabilities], axis=0)
    )


def test_an_instance_of_many_frames_counts_as_one() -> None:
    frames = np.stack([gray(255)] * 9)

    read = reading(kept("2.25.1", frames, frames=True), kept("2.25.2", gray(0)))

    assert read.probabilities[0] == pytest.approx(read.probabilities[2], abs=1e-6)
    assert read.read_frames == (tuple(range(9)), (0,))


def test_the_heat_map_is_that_of_the_frame_that_tells_most() -> None:
    frames = np.stack([gray(level) for level in (200, 255, 210)])

    read = reading(kept("2.25.1", gray(205)), kept("2.25.2", frames, frames=True))

    assert read.foremost == 2
    assert (read.explained.instance.sop_instance_uid, read.explained.frame) == ("2.25.2", 1)
    assert read.explained.foremost == 2


def test_a_class_that_is_foremost_in_no_frame_is_not_said_to_be_explained() -> None:
    answers = iter([(0.45, 0.55, 0.0), (0.44, 0.0, 0.56)])

    def predict(batch: Any) -> Sequence[Seen]:
        return [Seen(next(answers), np.zeros((8, 8), np.float32)) for _ in batch]

    read = read_study([kept("2.25.1", gray(1)), kept("2.25.2", gray(2))], MODEL, predict)

    assert read.foremost == 0
    assert read.explained.instance.sop_instance_uid == "2.25.1"
    assert read.explained.foremost == 1


def test_instances_that_cannot_be_read_are_left_out_and_named() -> None:
    broken = part10(an_image(gray(9), SOPInstanceUID="2.25.9"))[:-100]

    read = reading(KeptInstance("2.25.9", lambda: broken), kept("2.25.1", gray(255)))

    assert [source.SOPInstanceUID for source in read.sources] == ["2.25.1"]
    assert list(read.unreadable) == ["2.25.9"]


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ([], "None of the instances is in the store."),
        ([lambda image: image[:-100]], "The instance cannot be read: the pixel data is truncated"),
        (
            [lambda image: image[:-100], lambda image: image[:200]],
            "None of the 2 instances can be read; the first because",
        ),
        ([lambda _image: b"no DICOM at all" * 30], "The instance cannot be read"),
    ],
)
def test_a_study_without_a_readable_instance_says_why(
    contents: list[Callable[[bytes], bytes]], reason: str
) -> None:
    image = part10(an_image(gray(9)))
    instances = [
        KeptInstance(f"2.25.{number}", partial(spoil, image))
        for number, spoil in enumerate(contents)
    ]

    with pytest.raises(UnreadableStudy, match=reason):
        reading(*instances)


def test_color_is_given_as_gray_to_a_network_of_one_channel() -> None:
    def predict(batch: Any) -> Sequence[Seen]:
        assert batch.ndim == 3
        return by_brightness(batch)

    assert read_study([kept("2.25.1", np.full((8, 9, 3), 250, "u1"))], MODEL, predict).foremost == 2


def test_color_stays_color_for_a_network_of_three() -> None:
    model = a_model(input=NetworkInput(rows=32, columns=32, channels=3, multiply=1, add=0))
    shapes = []

    def predict(batch: Any) -> Sequence[Seen]:
        shapes.append(batch.shape)
        return by_brightness(batch)

    read_study([kept("2.25.1", np.full((8, 9, 3), 250, "u1"))], model, predict)

    assert shapes == [(1, 32, 32, 3)]


@pytest.mark.parametrize("count", [1, 2, MOST_FRAMES, MOST_FRAMES + 1, 500, 10_000])
def test_frames_are_read_evenly_and_never_too_many(count: int) -> None:
    frames = frames_to_read(count)

    assert len(frames) == min(count, MOST_FRAMES) == len(set(frames))
    assert frames[0] == 0
    assert frames[-1] == count - 1
    steps = np.diff(frames)
    assert count == 1 or steps.max() - steps.min() <= 1
