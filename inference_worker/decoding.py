"""Pictures out of instances, decoded ahead of the model and no further than memory allows.

A few threads read and decode while the model works on what came before: codecs and NumPy let the
interpreter go. What is decoded ahead is bounded, so that a series of a thousand slices takes no
more memory than one of a hundred.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import pydicom
from pydicom import Dataset

from imaging_pixels.decode import UndecodablePixels, frame_count
from imaging_pixels.inflation import check_inflated_size
from imaging_pixels.render import Picture, render
from inference_worker.input_quality import quality_fault
from inference_worker.preprocessing import to_network_geometry
from inference_worker.selection import frames_of_view
from message_contracts.model_description import NetworkInput

FRAMES_AT_ONCE = 16
"""Of a multi-frame instance, so many are decoded by one task."""
MOST_AHEAD = 32
"""Instances that are decoded, or being decoded, and that the model has not come to yet."""
MOST_BYTES_AHEAD = 2**28
"""Of their files together; one alone may be larger."""

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_RGB_DIMENSIONS = 3


@dataclass(frozen=True)
class KeptInstance:
    """One instance of the study, and how to get its Part 10 file."""

    sop_instance_uid: str
    read: Callable[[], bytes]
    frames: tuple[int, ...] | None = None
    """Which are to be read, counted from 0; ``None``: as of a view."""
    size_bytes: int = 0
    """Of its file, as far as it is known."""


@dataclass(frozen=True)
class Piece:
    """Some frames of an instance, ready for the network."""

    instance: KeptInstance
    source: Dataset
    """Without its pixels where this is the last piece of the instance."""
    frames: tuple[int, ...]
    """Counted from 0, one for each picture."""
    pictures: tuple[Picture, ...]
    faults: tuple[str | None, ...]
    """Of each picture, why nothing can be judged by it."""
    rest: tuple[int, ...] = ()
    """Frames that are yet to come."""


@dataclass(frozen=True)
class Unreadable:
    """An instance that cannot be read on."""

    instance: KeptInstance
    reason: str


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


def decoded(
    instances: Iterable[KeptInstance], wanted: NetworkInput, pool: Executor
) -> Iterator[Piece | Unreadable]:
    """Yield the pictures of the instances, in their order, decoded by ``pool`` ahead of the caller.

    Closed early, it leaves nothing in the pool that has not begun.
    """
    coming = iter(instances)
    waiting: deque[tuple[KeptInstance, Future[Piece | Unreadable]]] = deque()
    try:
        while True:
            _look_ahead(waiting, coming, wanted, pool)
            if not waiting:
                return
            instance, future = waiting.popleft()
            piece = future.result()
            if isinstance(piece, Piece) and piece.rest:
                waiting.appendleft((instance, pool.submit(_more, piece, wanted)))
            yield piece
    finally:
        for _, future in waiting:
            future.cancel()


def _look_ahead(
    waiting: deque[tuple[KeptInstance, Future[Piece | Unreadable]]],
    coming: Iterator[KeptInstance],
    wanted: NetworkInput,
    pool: Executor,
) -> None:
    ahead_bytes = sum(each.size_bytes for each, _ in waiting)
    while not waiting or (len(waiting) < MOST_AHEAD and ahead_bytes < MOST_BYTES_AHEAD):
        instance = next(coming, None)
        if instance is None:
            return
        ahead_bytes += instance.size_bytes
        waiting.append((instance, pool.submit(_first, instance, wanted)))


def _first(instance: KeptInstance, wanted: NetworkInput) -> Piece | Unreadable:
    try:
        source = parse(instance.read())
        frames = instance.frames
        if frames is None:
            frames = frames_of_view(frame_count(source))
        return _piece(instance, source, frames, wanted)
    except UndecodablePixels as error:
        return Unreadable(instance, str(error))


def _more(piece: Piece, wanted: NetworkInput) -> Piece | Unreadable:
    try:
        return _piece(piece.instance, piece.source, piece.rest, wanted)
    except UndecodablePixels as error:
        return Unreadable(piece.instance, str(error))


def _piece(
    instance: KeptInstance, source: Dataset, frames: tuple[int, ...], wanted: NetworkInput
) -> Piece:
    now, rest = frames[:FRAMES_AT_ONCE], frames[FRAMES_AT_ONCE:]
    pictures, faults = [], []
    for number in now:
        rendered = render(source, number)
        faults.append(quality_fault(rendered))
        pictures.append(for_network(rendered, wanted))
    if not rest:
        for keyword in _PIXELS:
            if keyword in source:
                del source[keyword]
    return Piece(instance, source, now, tuple(pictures), tuple(faults), rest)


def for_network(picture: Picture, wanted: NetworkInput) -> Picture:
    """Return a rendered picture as the network takes it."""
    if wanted.channels == 1 and picture.ndim == _RGB_DIMENSIONS:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return to_network_geometry(picture, wanted.rows, wanted.columns)
