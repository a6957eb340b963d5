"""WADO-RS: instances and their metadata (PS3.18 §10.4.1.1.1, §10.4.1.1.2)."""

from itertools import chain

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from dicom_listener.dicomweb.media_types import DICOM, DICOM_JSON
from dicom_listener.dicomweb.metadata import metadata_of
from dicom_listener.dicomweb.multipart import content_type, end_of_parts
from dicom_listener.dicomweb.qido import require_json
from dicom_listener.dicomweb.resources import INSTANCE, SERIES, STUDY, Found, Resource
from dicom_listener.dicomweb.retrieval import (
    file_content,
    first_and_rest,
    gone,
    not_acceptable,
    part,
    parts,
    wanted,
)
from imaging_pixels.transcode import NotTranscodable
from imaging_store.instances import NotInStore

router = APIRouter()


@router.get(STUDY)
@router.get(SERIES)
@router.get(INSTANCE)
def retrieve(found: Found) -> Response:
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
        return _one(found, chosen[0][1], is_multipart=asked.is_multipart)
    is_complete = len(chosen) == len(found.instances)
    return StreamingResponse(
        parts(found.store, chosen, found.boundary, found.url),
        # Those that are not there cannot be had in a transfer syntax that was asked for.
        status_code=200 if is_complete else 206,
        media_type=content_type(found.boundary, DICOM),
    )


def _one(found: Resource, transfer_syntax_uid: str, *, is_multipart: bool) -> Response:
    """Answer for one instance: what is wrong with it is known before the answer begins."""
    try:
        content = first_and_rest(file_content(found.store, found.instance, transfer_syntax_uid))
    except NotInStore:
        raise gone() from None
    except NotTranscodable as error:
        raise not_acceptable(str(error)) from None
    if not is_multipart:
        media_type = f"{DICOM}; transfer-syntax={transfer_syntax_uid}"
        return StreamingResponse(content, media_type=media_type)
    body = part(found.instance, transfer_syntax_uid, content, found.boundary, found.url)
    return StreamingResponse(
        chain(body, [end_of_parts(found.boundary)]),
        media_type=content_type(found.boundary, DICOM),
    )


@router.get(f"{STUDY}/metadata")
@router.get(f"{SERIES}/metadata")
@router.get(f"{INSTANCE}/metadata")
def retrieve_metadata(request: Request, found: Found) -> Response:
    """Retrieve all that is in instances but bulk data."""
    require_json(request)
    return StreamingResponse(
        metadata_of(found.store, found.instances, found.url), media_type=DICOM_JSON
    )
