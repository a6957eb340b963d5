"""WADO-RS: instances and their metadata (PS3.18 §10.4.1.1.1, §10.4.1.1.2)."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from dicom_listener.dicomweb.media_types import DICOM, DICOM_JSON
from dicom_listener.dicomweb.metadata import metadata_of
from dicom_listener.dicomweb.multipart import content_type, end_of_parts
from dicom_listener.dicomweb.pixel_work import PIXEL_WORK, begun, streamed
from dicom_listener.dicomweb.qido import require_json
from dicom_listener.dicomweb.resources import INSTANCE, SERIES, STUDY, Found, Resource
from dicom_listener.dicomweb.retrieval import (
    file_content,
    gone,
    head_of,
    lane_of,
    not_acceptable,
    parts,
    wanted,
)
from dicom_listener.sop_classes import DEFLATED
from imaging_pixels.transcode import NotTranscodable
from imaging_store.instances import NotInStore

router = APIRouter()


@router.get(STUDY)
@router.get(SERIES)
@router.get(INSTANCE)
async def retrieve(found: Found) -> Response:
    """Retrieve instances."""
    asked = wanted(found.accepted, is_one=found.is_one)
    chosen = [
        (instance, transfer_syntax_uid)
        for instance in found.instances
        if (transfer_syntax_uid := asked.of(instance)) is not None
    ]
    if not chosen:
        raise not_acceptable("what is stored cannot be had in any of these transfer syntaxes")
    if found.is_one:
        return await _one(found, chosen[0][1], is_multipart=asked.is_multipart)
    is_complete = len(chosen) == len(found.instances)
    return StreamingResponse(
        streamed(parts(found.store, chosen, found.boundary, found.url), lane_of(chosen)),
        # Those that are not there cannot be had in a transfer syntax that was asked for.
        status_code=200 if is_complete else 206,
        media_type=content_type(found.boundary, DICOM),
    )


async def _one(found: Resource, transfer_syntax_uid: str, *, is_multipart: bool) -> Response:
    """Answer for one instance: what is wrong with it is known before the answer begins."""
    instance = found.instance
    content = file_content(found.store, instance, transfer_syntax_uid)
    try:
        pieces = await begun(content, lane_of([(instance, transfer_syntax_uid)]))
    except NotInStore:
        raise gone() from None
    except NotTranscodable as error:
        raise not_acceptable(str(error)) from None
    if not is_multipart:
        media_type = f"{DICOM}; transfer-syntax={transfer_syntax_uid}"
        return StreamingResponse(pieces, media_type=media_type)

    async def body() -> AsyncIterator[bytes]:
        yield head_of(instance, transfer_syntax_uid, found.boundary, found.url)
        async for piece in pieces:
            yield piece
        yield end_of_parts(found.boundary)

    return StreamingResponse(body(), media_type=content_type(found.boundary, DICOM))


@router.get(f"{STUDY}/metadata")
@router.get(f"{SERIES}/metadata")
@router.get(f"{INSTANCE}/metadata")
def retrieve_metadata(request: Request, found: Found) -> Response:
    """Retrieve all that is in instances but bulk data."""
    require_json(request)
    is_deflated = any(each.transfer_syntax_uid in DEFLATED for each in found.instances)
    metadata = metadata_of(found.store, found.instances, found.url)
    return StreamingResponse(
        streamed(metadata, PIXEL_WORK if is_deflated else None), media_type=DICOM_JSON
    )
