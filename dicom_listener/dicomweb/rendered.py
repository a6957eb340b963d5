"""Rendered instances and thumbnails (PS3.18 §10.4.1.1.3)."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_listener.dicomweb.bulk_data import NoSuchValue
from dicom_listener.dicomweb.frames import frame_numbers, no_such_value
from dicom_listener.dicomweb.multipart import content_type, end_of_parts, head_of_part
from dicom_listener.dicomweb.pixel_work import PIXEL_WORK, at_work, streamed
from dicom_listener.dicomweb.rendering import (
    InvalidRendering,
    Rendering,
    parse_rendering,
    picture_of,
    picture_type,
    thumbnail_of,
)
from dicom_listener.dicomweb.resources import INSTANCE, SERIES, STUDY, Found, Resource
from dicom_listener.dicomweb.retrieval import Instance, gone, instance_url, not_acceptable
from imaging_pixels.decode import UndecodablePixels
from imaging_store.instances import NotInStore
from service_runtime.problem_details import Problem

router = APIRouter()


@router.get(f"{STUDY}/rendered")
@router.get(f"{SERIES}/rendered")
def retrieve_rendered_images(request: Request, found: Found) -> Response:
    """Retrieve the pictures of a study or series, as parts."""
    rendering, _ = _asked(request, found)
    pictures = ((each, instance_url(found.url, each)) for each in _images(found))

    def parts() -> Iterator[bytes]:
        for instance, location in pictures:
            with suppress(UndecodablePixels, NotInStore):
                picture = picture_of(found.store, instance, rendering)
                head = head_of_part(found.boundary, rendering.media_type, f"{location}/rendered")
                yield head + picture
        yield end_of_parts(found.boundary)

    return StreamingResponse(
        streamed(parts(), PIXEL_WORK),
        media_type=content_type(found.boundary, rendering.media_type),
    )


@router.get(f"{INSTANCE}/rendered")
async def retrieve_rendered(request: Request, found: Found) -> Response:
    """Retrieve the picture of an instance; of several frames, the one in the middle."""
    return await at_work(_picture, request, found, None)


@router.get(f"{INSTANCE}/frames/{{numbers}}/rendered")
async def retrieve_rendered_frame(request: Request, found: Found, numbers: str) -> Response:
    """Retrieve the picture of a frame."""
    wanted = frame_numbers(numbers)
    if len(wanted) != 1:
        raise Problem(400, "invalid-frames", "frames: one number is needed here")
    return await at_work(_picture, request, found, wanted[0])


@router.get(f"{STUDY}/thumbnail")
@router.get(f"{SERIES}/thumbnail")
@router.get(f"{INSTANCE}/thumbnail")
async def retrieve_thumbnail(request: Request, found: Found) -> Response:
    """Retrieve a small picture that stands for a study, series or instance."""
    rendering, _ = _asked(request, found, is_thumbnail=True)
    try:
        picture = await at_work(thumbnail_of, found.store, _images(found), rendering)
    except UndecodablePixels as error:
        raise not_acceptable(str(error)) from None
    return Response(picture, media_type=rendering.media_type)


def _picture(request: Request, found: Resource, number: int | None) -> Response:
    rendering, is_multipart = _asked(request, found)
    try:
        picture = picture_of(found.store, found.instance, rendering, number)
    except NoSuchValue:
        raise no_such_value() from None
    except NotInStore:
        raise gone() from None
    except UndecodablePixels as error:
        raise not_acceptable(str(error)) from None
    if not is_multipart:
        return Response(picture, media_type=rendering.media_type)
    head = head_of_part(found.boundary, rendering.media_type)
    return Response(
        head + picture + end_of_parts(found.boundary),
        media_type=content_type(found.boundary, rendering.media_type),
    )


def _asked(
    request: Request, found: Resource, *, is_thumbnail: bool = False
) -> tuple[Rendering, bool]:
    media_type, is_multipart = picture_type(found.accepted)
    try:
        rendering = parse_rendering(
            media_type, request.query_params.multi_items(), is_thumbnail=is_thumbnail
        )
    except InvalidRendering as error:
        raise Problem(400, "invalid-rendering", str(error)) from None
    return rendering, is_multipart


def _images(found: Resource) -> Sequence[Instance]:
    """Return the instances that have pictures: of a study, those of one series first.

    Raises
    ------
    Problem
        406 where there is none.
    """
    images = [
        each
        for each in found.instances
        if each.rows is not None or each.sop_class_uid == SecondaryCaptureImageStorage
    ]
    if found.is_one:
        return found.instances
    if not images:
        raise not_acceptable("there is no image in it")
    return images
