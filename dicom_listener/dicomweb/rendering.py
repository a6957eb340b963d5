"""Pictures of instances as a screen shows them (PS3.18 §8.3.5, §10.4.1.1.3)."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
from pydicom import Dataset

from dicom_listener.dicomweb.bulk_data import NoSuchValue
from dicom_listener.dicomweb.media_types import MULTIPART, MediaType, covers
from dicom_listener.dicomweb.pixels import open_pixels
from dicom_listener.dicomweb.retrieval import Instance, not_acceptable
from imaging_pixels.decode import UndecodablePixels
from imaging_pixels.render import Picture, render
from imaging_store.instances import FileInstanceStore, NotInStore

JPEG, PNG = "image/jpeg", "image/png"

_FUNCTIONS = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
_LARGEST_VIEWPORT = 8192
_THUMBNAIL = 200
_DEFAULT_QUALITY = 90
_TRIED_FOR_THUMBNAIL = 3


Region = tuple[float | None, float | None, float | None, float | None]


class InvalidRendering(ValueError):
    """A parameter cannot be understood; the text names it."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a picture is to be."""

    media_type: str
    window: tuple[float, float, str] | None = None
    """Center, width and function; else as the instance says."""
    viewport: tuple[int | None, int | None] = (None, None)
    """Width and height that the picture has to fit into; ``None`` where any will do."""
    region: Region | None = None
    """Of the source: left, top, width, height. ``None`` stands for its edge; where a size is
    negative, the picture is flipped."""
    quality: int = _DEFAULT_QUALITY


def parse_rendering(
    media_type: str, parameters: Iterable[tuple[str, str]], *, is_thumbnail: bool = False
) -> Rendering:
    """Read the query parameters of a rendered resource.

    Raises
    ------
    InvalidRendering
        One that is not known, or a value that is none of its kind.
    """
    window, quality = None, _DEFAULT_QUALITY
    viewport: tuple[int | None, int | None] = (_THUMBNAIL,) * 2 if is_thumbnail else (None, None)
    region: Region | None = None
    for name, value in parameters:
        if name == "viewport":
            viewport, region = _viewport(value)
        elif name == "window" and not is_thumbnail:
            window = _window(value)
        elif name == "quality" and not is_thumbnail:
            quality = int(_numbers("quality", value, 1)[0])
            if not 1 <= quality <= 100:  # noqa: PLR2004 - percent
                raise InvalidRendering("quality: 1 to 100 is needed")
        elif name != "accept":
            raise InvalidRendering("only accept, viewport, window and quality are understood")
    return Rendering(media_type, window, viewport, region, quality)


def picture_type(accepted: Sequence[MediaType]) -> tuple[str, bool]:
    """Return the media type of pictures, and whether they are to come as parts.

    Raises
    ------
    Problem
        406 where neither JPEG nor PNG is taken.
    """
    for each in accepted:
        for name in (JPEG, PNG):
            if each.covers(name):
                return name, False
            if each.name == MULTIPART and covers(each.part, name):
                return name, True
    raise not_acceptable(f"{JPEG} and {PNG} are offered here")


def picture_of(
    store: FileInstanceStore, instance: Instance, rendering: Rendering, number: int | None = None
) -> bytes:
    """Return the picture of a frame, counted from 1; without a number, of the middle one.

    Raises
    ------
    NoSuchValue
        There is no such frame.
    UndecodablePixels
        It cannot be shown.
    NotInStore
        It has been purged meanwhile.
    """
    pixels = open_pixels(store, instance)
    if rendering.window is not None:
        _set_window(pixels.dataset, rendering.window)
    wanted = (pixels.count + 1) // 2 if number is None else number
    try:
        pixels.require([wanted])
    except NoSuchValue:
        if number is not None:
            raise
        raise UndecodablePixels("there is no pixel data in it") from None
    picture = render(*pixels.to_decode(wanted))
    return _encoded(_fitted(picture, rendering), rendering)


def thumbnail_of(
    store: FileInstanceStore, instances: Sequence[Instance], rendering: Rendering
) -> bytes:
    """Return a picture that stands for several instances: the one in the middle of them.

    Raises
    ------
    UndecodablePixels
        None of those tried can be shown.
    """
    middle = len(instances) // 2
    for instance in [*instances[middle:], *instances[:middle]][:_TRIED_FOR_THUMBNAIL]:
        with suppress(UndecodablePixels, NotInStore):
            return picture_of(store, instance, rendering)
    raise UndecodablePixels("there is no picture that could stand for it")


def _set_window(dataset: Dataset, window: tuple[float, float, str]) -> None:
    """Have a data set say other values of interest than it came with (PS3.3 §C.11.2)."""
    groups = [
        *(dataset.get("PerFrameFunctionalGroupsSequence") or []),
        *(dataset.get("SharedFunctionalGroupsSequence") or []),
    ]
    for group in groups:
        group.pop("FrameVOILUTSequence", None)
    dataset.pop("VOILUTSequence", None)
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = window


def _fitted(picture: Picture, rendering: Rendering) -> Picture:
    if rendering.region is not None:
        picture = _cut(picture, rendering.region)
    if rendering.viewport == (None, None):
        return picture
    rows, columns = picture.shape[:2]
    width, height = (side or _LARGEST_VIEWPORT for side in rendering.viewport)
    scale = min(width / columns, height / rows)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized: Picture = cv2.resize(picture, size, interpolation=method)
    return resized


def _cut(picture: Picture, region: Region) -> Picture:
    left, top, width, height = region
    rows = _span(top, height, picture.shape[0])
    columns = _span(left, width, picture.shape[1])
    cut = picture[rows, columns]
    if not cut.size:
        raise UndecodablePixels("viewport: the region is outside of the picture")
    flipped: Picture = cut[:: -1 if (height or 1) < 0 else 1, :: -1 if (width or 1) < 0 else 1]
    return np.ascontiguousarray(flipped)


def _span(start: float | None, size: float | None, whole: int) -> slice:
    first = start or 0
    end = whole if size is None else first + abs(size)
    return slice(max(0, round(first)), max(0, round(end)))


def _encoded(picture: Picture, rendering: Rendering) -> bytes:
    if picture.ndim == 3:  # noqa: PLR2004 - rows, columns, samples
        picture = picture[..., ::-1]
    extension, options = (
        (".jpg", [cv2.IMWRITE_JPEG_QUALITY, rendering.quality])
        if rendering.media_type == JPEG
        else (".png", [])
    )
    is_done, data = cv2.imencode(extension, picture, options)
    if not is_done:
        raise UndecodablePixels(f"the picture does not go into {rendering.media_type}")
    return bytes(data)


def _viewport(value: str) -> tuple[tuple[int | None, int | None], Region | None]:
    """Read numbers of which any may be elided, but not its comma (PS3.18 §8.3.5.1.3)."""
    parts = value.split(",")
    if len(parts) not in (2, 6):
        raise InvalidRendering("viewport: 2 or 6 numbers are needed, of which some may be empty")
    numbers = [_numbers("viewport", part, 1)[0] if part else None for part in parts]
    for side in numbers[:2]:
        if side is not None and not 1 <= side <= _LARGEST_VIEWPORT:
            raise InvalidRendering(f"viewport: 1 to {_LARGEST_VIEWPORT} is needed")
    width, height = (None if side is None else int(side) for side in numbers[:2])
    left, top, *size = numbers[2:] or (None,) * 4
    if (left, top, *size) == (None,) * 4:
        return (width, height), None
    return (width, height), (left, top, size[0], size[1])


def _window(value: str) -> tuple[float, float, str]:
    center_and_width, _, function = value.rpartition(",")
    if function not in _FUNCTIONS:
        raise InvalidRendering("window: center, width and linear, linear-exact or sigmoid")
    center, width = _numbers("window", center_and_width, 2)
    if width < 1 if function == "linear" else width <= 0:
        raise InvalidRendering("window: the width is too small")
    return center, width, _FUNCTIONS[function]


def _numbers(name: str, value: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(abs(number) < 1e9 for number in numbers):  # noqa: PLR2004
        raise InvalidRendering(f"{name}: {count} numbers are needed")
    return numbers
