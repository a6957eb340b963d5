from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from inference_worker import decoding, study_reading
from inference_worker.cell_grid import CellGrid
from inference_worker.decoding import MOST_AHEAD, MOST_BYTES_AHEAD, KeptInstance, decoded
from inference_worker.input_quality import Refused
from inference_worker.study_reading import (
    BATCH,
    MOST_TELLING,
    StudyReading,
    UnreadableStudy,
    read_study,
)
from message_contracts.model_description import NetworkInput
from message_contracts.study_selection import Reads, StudySelection
from tests.readings import a_model
from tests.synthetic_images import an_image, part10

MODEL = a_model()
POOL = ThreadPoolExecutor(2)


@dataclass(frozen=True)
class Seen:
    """A prediction whose class is the brightness of the picture: dark, middle, bright."""

    probabilities: tuple[float, ...]
    cam: npt.NDArray[np.float32]
    refusal: str | None = None
    grid: CellGrid | None = None
    distance: float | None = None


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
    return read_study(instances, MODEL, by_brightness, POOL)


@pytest.fixture(autouse=True)
def _plain_pictures_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "quality_fault", lambda _picture: None)


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


def test_an_empty_number_of_frames_may_claim_a_vr_that_there_is_not() -> None:
    empty = b"\x28\x00\x08\x00%b\0\0"
    good = part10(an_image(gray(255), SOPInstanceUID="2.25.1", NumberOfFrames=None))
    assert empty % b"IS" in good
    damaged = good.replace(empty % b"IS", empty % b"AW")

    read = reading(KeptInstance("2.25.1", lambda: damaged))

    assert read.read_frames == ((0,),)


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

    read = read_study([kept("2.25.1", gray(1)), kept("2.25.2", gray(2))], MODEL, predict, POOL)

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

    assert (
        read_study([kept("2.25.1", np.full((8, 9, 3), 250, "u1"))], MODEL, predict, POOL).foremost
        == 2
    )


def test_color_stays_color_for_a_network_of_three() -> None:
    model = a_model(input=NetworkInput(rows=32, columns=32, channels=3, multiply=1, add=0))
    shapes = []

    def predict(batch: Any) -> Sequence[Seen]:
        shapes.append(batch.shape)
        return by_brightness(batch)

    read_study([kept("2.25.1", np.full((8, 9, 3), 250, "u1"))], model, predict, POOL)

    assert shapes == [(1, 32, 32, 3)]


def test_frames_of_several_instances_are_given_to_the_model_together() -> None:
    sizes = []

    def predict(batch: Any) -> Sequence[Seen]:
        sizes.append(len(batch))
        return by_brightness(batch)

    instances = [kept(f"2.25.{number}", gray(number)) for number in range(1, BATCH + 4)]

    read = read_study(instances, MODEL, predict, POOL)

    assert sizes == [BATCH, 3]
    assert [source.SOPInstanceUID for source in read.sources] == [
        each.sop_instance_uid for each in instances
    ]


def test_of_slices_each_frame_counts_the_same() -> None:
    model = a_model(reads=StudySelection(what="slices"))
    bright = np.stack([gray(255)] * 9)

    read = read_study(
        [kept("2.25.1", bright, frames=True), kept("2.25.2", gray(0))], model, by_brightness, POOL
    )

    assert read.probabilities[2] == pytest.approx(0.9, abs=1e-3)


def test_a_series_rests_on_the_slices_farthest_from_normal() -> None:
    normal = [
        each.model_copy(update={"no_abnormality": each.label == "Round"}) for each in MODEL.classes
    ]
    model = a_model(
        classes=tuple(normal), reads=StudySelection(what="slices", aggregate="top_k_mean", top_k=2)
    )
    levels = [0, 10, 255, 0, 240, 5]
    slices = [kept(f"2.25.{place}", gray(level)) for place, level in enumerate(levels, start=1)]

    read = read_study(slices, model, by_brightness, POOL)

    assert read.foremost == 2
    assert [each.instance.sop_instance_uid for each in read.telling] == ["2.25.3", "2.25.5"]
    assert len(read.sources) == len(levels)


def test_of_many_telling_frames_nine_are_shown() -> None:
    levels = [255 - number for number in range(20)]
    views = [kept(f"2.25.{place}", gray(level)) for place, level in enumerate(levels, start=1)]

    read = reading(*reversed(views))

    told = [each.instance.sop_instance_uid for each in read.telling]
    assert told == [each.sop_instance_uid for each in views[:MOST_TELLING]]
    assert read.explained is read.telling[0]


def test_what_the_model_refuses_counts_for_nothing() -> None:
    def predict(batch: Any) -> Sequence[Seen]:
        return [
            replace(seen, refusal="It is a hip." if picture.mean() > 200 else None)
            for seen, picture in zip(by_brightness(batch), batch, strict=True)
        ]

    read = read_study([kept("2.25.1", gray(255)), kept("2.25.2", gray(0))], MODEL, predict, POOL)

    assert read.foremost == 0
    assert read.refused == {"2.25.1": "It is a hip."}
    with pytest.raises(Refused, match=r"^It is a hip\.$"):
        read_study([kept("2.25.1", gray(255))], MODEL, predict, POOL)


def test_an_instance_refused_in_part_and_then_unreadable_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance = kept("2.25.1", gray(0))
    picture = np.zeros((32, 32), np.uint8)
    pieces = [
        decoding.Piece(instance, Dataset(), (0,), (picture,), ("It is blank.",), rest=(1,)),
        decoding.Unreadable(instance, "the pixel data is truncated"),
    ]
    monkeypatch.setattr(study_reading, "decoded", lambda *_: iter(pieces))

    with pytest.raises(UnreadableStudy, match="truncated"):
        reading(instance)


def test_a_picture_that_nothing_can_be_judged_by_is_not_given_to_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        decoding, "quality_fault", lambda picture: "It is blank." if picture.max() == 0 else None
    )

    read = reading(kept("2.25.1", gray(0)), kept("2.25.2", gray(255)))

    assert read.refused == {"2.25.1": "It is blank."}
    assert read.foremost == 2
    assert len(read.sources) == 1


def test_a_frame_that_is_damaged_leaves_its_whole_instance_out() -> None:
    many = np.stack([gray(255)] * (BATCH + 5))
    image = an_image(many, frames=True, SOPInstanceUID="2.25.1", NumberOfFrames=BATCH + 5)
    del image.PixelData
    frames = encapsulate([b"\xff\xd8 no JPEG at all"] * (BATCH + 5))
    image.PixelData = frames
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    content = part10(image)

    read = read_study(
        [KeptInstance("2.25.1", lambda: content), kept("2.25.2", gray(0))],
        MODEL,
        by_brightness,
        POOL,
    )

    assert list(read.unreadable) == ["2.25.1"]
    assert len(read.sources) == 1


def test_no_more_is_decoded_ahead_than_is_allowed() -> None:
    begun: list[str] = []
    image = part10(an_image(gray(9)))

    def read_one(uid: str) -> bytes:
        begun.append(uid)
        return image

    instances = [
        KeptInstance(uid, partial(read_one, uid)) for uid in map("2.25.{}".format, range(1, 200))
    ]
    seen: list[int] = []

    def predict(batch: Any) -> Sequence[Seen]:
        seen.append(len(begun))
        return by_brightness(batch)

    read_study(instances, MODEL, predict, POOL)

    assert len(begun) == 199
    # What was given to the model before, this batch, and what may lie ahead of it.
    assert all(count <= number * BATCH + MOST_AHEAD for number, count in enumerate(seen, start=1))


def test_large_files_are_decoded_one_ahead_of_the_other() -> None:
    begun: list[str] = []
    image = part10(an_image(gray(9)))

    def read_one(uid: str) -> bytes:
        begun.append(uid)
        return image

    huge = [
        KeptInstance(uid, partial(read_one, uid), size_bytes=MOST_BYTES_AHEAD)
        for uid in map("2.25.{}".format, range(1, 6))
    ]

    pieces = decoded(huge, MODEL.input, POOL)

    assert next(pieces).instance is huge[0]
    assert begun == ["2.25.1"]
    assert len(list(pieces)) == 4


def far_away(batch: npt.NDArray[np.uint8]) -> Sequence[Seen]:
    return [
        replace(each, distance=float(picture.mean()), refusal="too far" if refused else None)
        for each, picture in zip(by_brightness(batch), batch, strict=True)
        for refused in [picture.mean() > 200]
    ]


def test_the_picture_in_the_middle_stands_for_the_study() -> None:
    instances = [kept(f"2.25.{number}", gray(10 * number)) for number in range(1, 6)]

    given = read_study(instances, MODEL, far_away, POOL).given

    assert given is not None
    assert given.picture_count == 5
    assert given.brightness == pytest.approx(30, abs=1)
    assert given.contrast == pytest.approx(0, abs=1)
    assert given.domain_distance == pytest.approx(given.brightness, abs=0.01)


def test_a_refusal_says_what_the_network_was_given() -> None:
    with pytest.raises(Refused) as refused:
        read_study([kept("2.25.1", gray(250))], MODEL, far_away, POOL)

    assert refused.value.given is not None
    assert refused.value.given.domain_distance == pytest.approx(250, abs=1)


def test_a_distance_that_is_no_number_is_not_told() -> None:
    def lost(batch: npt.NDArray[np.uint8]) -> Sequence[Seen]:
        return [replace(each, distance=float("nan")) for each in by_brightness(batch)]

    given = read_study([kept("2.25.1", gray(100))], MODEL, lost, POOL).given

    assert given is not None
    assert given.domain_distance is None


def most_held_bytes(slices: int) -> int:
    """Return the most memory that reading a series of 128 x 128 slices of 16 bits took."""
    content = part10(an_image(np.tile(np.arange(128, dtype="u2") << 3, (128, 1))))
    model = MODEL.model_copy(update={"reads": StudySelection(what=Reads.SLICES)})
    # As a store reads them: bytes of its own each time.
    instances = (
        KeptInstance(f"2.25.{number}", lambda: bytes(bytearray(content)), size_bytes=len(content))
        for number in range(slices)
    )
    tracemalloc.start()
    try:
        read = read_study(instances, model, by_brightness, POOL)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert sum(map(len, read.read_frames)) == slices


def test_a_long_series_is_never_in_memory_as_a_whole() -> None:
    slices = 10 * MOST_AHEAD
    most_held_bytes(2)

    # Of each slice its references and its heat map stay; pixels only of those in the window.
    assert most_held_bytes(slices) < slices * 128 * 128 * 2 / 2
