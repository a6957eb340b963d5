"""Frames and bulk data of an instance (PS3.18 §10.4.1.1.4, §10.4.1.1.5)."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar

from anyio import to_thread
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_listener.dicomweb.bulk_data import (
    PIXEL_DATA,
    NoSuchValue,
    parse_path,
    read_dataset,
    value_at,
)
from dicom_listener.dicomweb.media_types import MULTIPART, OCTET_STREAM, MediaType, covers
from dicom_listener.dicomweb.memory import Memory
from dicom_listener.dicomweb.multipart import content_type, end_of_parts, head_of_part
from dicom_listener.dicomweb.pixel_work import PIXEL_WORK, Lane, begun
from dicom_listener.dicomweb.pixels import Pixels, frame_media_type, open_pixels
from dicom_listener.dicomweb.resources import INSTANCE, Found, Resource
from dicom_listener.dicomweb.retrieval import gone, instance_url, not_acceptable
from dicom_listener.sop_classes import DEFLATED
from imaging_pixels.decode import UndecodablePixels
from imaging_store.instances import NotInStore
from service_runtime.problem_details import Problem

router = APIRouter()
T = TypeVar("T")

INFLATED_BYTES = 2**30
"""Of all deflated data sets together of which frames or values are being sent."""
INFLATED = Memory(INFLATED_BYTES)

MOST_FRAMES = 10_000
"""In one request."""


@router.get(f"{INSTANCE}/frames/{{numbers}}")
async def retrieve_frames(found: Found, numbers: str) -> Response:
    """Retrieve frames, counted from 1, in the order of the list."""
    return await _frames(found, lambda _pixels: frame_numbers(numbers))


@router.get(f"{INSTANCE}/bulkdata/{{path:path}}")
async def retrieve_bulk_data(found: Found, path: str) -> Response:
    """Retrieve a value that metadata points at; of pixel data, every frame."""
    try:
        place = parse_path(path)
    except NoSuchValue:
        raise no_such_value() from None
    if place == (PIXEL_DATA,):
        return await _frames(found, lambda pixels: range(1, pixels.count + 1))
    is_multipart = _as_parts(found.accepted, OCTET_STREAM, is_one=True)
    if is_multipart is None:
        raise not_acceptable(f"{OCTET_STREAM} is offered here")

    def value() -> Iterator[bytes]:
        dataset = _read(found, read_dataset)
        try:
            yield value_at(dataset, place, found.instance.transfer_syntax_uid)
        except NoSuchValue:
            raise no_such_value() from None

    content = await begun(value(), _lane_of(found))
    return _answer(found, content, OCTET_STREAM, is_multipart=is_multipart)


def frame_numbers(text: str) -> Sequence[int]:
    """Return a list of frames as a URL names them.

    Raises
    ------
    Problem
        400 where it is none.
    """
    numbers = text.split(",")
    if len(numbers) > MOST_FRAMES or not all(
        number.isascii() and number.isdigit() and len(number) < 10  # noqa: PLR2004 - an IS
        for number in numbers
    ):
        raise Problem(400, "invalid-frames", "frames: numbers with a comma between them are needed")
    return [int(number) for number in numbers]


async def _frames(found: Resource, numbers_of: Callable[[Pixels], Sequence[int]]) -> Response:
    pixels, numbers = await to_thread.run_sync(
        _asked_for, found, numbers_of, limiter=_lane_of(found)
    )
    as_stored, is_multipart = _how(found, is_one=len(numbers) == 1)
    take = pixels.stored if as_stored else pixels.uncompressed
    try:
        is_read_only = as_stored and pixels.is_stored_as_sent
        frames = await begun(map(take, numbers), None if is_read_only else PIXEL_WORK)
    except NotInStore:
        raise gone() from None
    except UndecodablePixels as error:
        raise not_acceptable(str(error)) from None
    return _answer(found, frames, _part_type(found, as_stored=as_stored), is_multipart=is_multipart)


def _asked_for(
    found: Resource, numbers_of: Callable[[Pixels], Sequence[int]]
) -> tuple[Pixels, Sequence[int]]:
    pixels = _read(found, open_pixels)
    numbers = numbers_of(pixels)
    try:
        pixels.require(numbers)
    except NoSuchValue:
        raise no_such_value() from None
    return pixels, numbers


def _lane_of(found: Resource) -> Lane:
    """Return where an instance is read: what is deflated has to be in memory for it."""
    return PIXEL_WORK if found.instance.transfer_syntax_uid in DEFLATED else None


def _how(found: Resource, *, is_one: bool) -> tuple[bool, bool]:
    """Return whether frames are to be sent as stored, and whether as parts."""
    stored = found.instance.transfer_syntax_uid
    is_native = not UID(stored).is_encapsulated
    for each in found.accepted:
        as_parts = _as_parts([each], OCTET_STREAM, is_one=is_one)
        if as_parts is not None:
            # Whoever takes octets is sent pixels, unless they ask for what is stored.
            return is_native or each.transfer_syntax in ("*", stored), as_parts
        as_parts = _as_parts([each], frame_media_type(stored), is_one=is_one)
        if as_parts is not None and each.transfer_syntax in ("", "*", stored):
            return True, as_parts
    raise not_acceptable(f"{OCTET_STREAM} and {frame_media_type(stored)} are offered here")


def _as_parts(accepted: Sequence[MediaType], name: str, *, is_one: bool) -> bool | None:
    """Return whether ``name`` is taken as parts, else whole; ``None`` where it is not taken."""
    for each in accepted:
        if each.covers(MULTIPART) and covers(each.part, name):
            return True
        if is_one and each.covers(name):
            return False
    return None


def _part_type(found: Resource, *, as_stored: bool) -> str:
    stored = found.instance.transfer_syntax_uid
    if as_stored and UID(stored).is_encapsulated:
        return f"{frame_media_type(stored)}; transfer-syntax={stored}"
    return f"{OCTET_STREAM}; transfer-syntax={ExplicitVRLittleEndian}"


def _answer(
    found: Resource, values: AsyncIterator[bytes], media_type: str, *, is_multipart: bool
) -> Response:
    if not is_multipart:
        return StreamingResponse(values, media_type=media_type)

    async def body() -> AsyncIterator[bytes]:
        location = instance_url(found.url, found.instance)
        async for value in values:
            yield head_of_part(found.boundary, media_type, location)
            yield value
        yield end_of_parts(found.boundary)

    return StreamingResponse(
        body(), media_type=content_type(found.boundary, media_type.partition(";")[0])
    )


def _read(found: Resource, read: Callable[..., T]) -> T:
    try:
        return read(found.store, found.instance, INFLATED)
    except NotInStore:
        raise gone() from None
    except UndecodablePixels as error:
        raise not_acceptable(str(error)) from None


def no_such_value() -> Problem:
    """Return the problem of a frame or value that is not there."""
    return Problem(404, "not-found", "the instance has no such frame or value")
