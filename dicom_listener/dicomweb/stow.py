"""STOW-RS: instances are stored (PS3.18 §10.5)."""

from collections.abc import Iterator, Sequence

import structlog
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy import select
from starlette.requests import ClientDisconnect

from dicom_listener.dicomweb import stow_response
from dicom_listener.dicomweb.installation import DicomWeb, Poster, Web, base_url
from dicom_listener.dicomweb.media_types import (
    DICOM,
    DICOM_JSON,
    MULTIPART,
    covers,
    parse_media_type,
)
from dicom_listener.dicomweb.multipart import MalformedMultipart
from dicom_listener.dicomweb.posting import Outcome, Posting
from dicom_listener.dicomweb.qido import require_json
from dicom_listener.dicomweb.stow_response import Location
from imaging_store.schema.ingest import instance
from service_runtime.database import Database
from service_runtime.problem_details import Problem

router = APIRouter()

RETRY_AFTER_S = 60
"""Room comes back when a person has made some, or when a purge has run."""

_ASKED_AT_ONCE = 500
_LOG = structlog.get_logger()


@router.post("/studies")
async def store_instances(request: Request, user: Poster, web: Web) -> JSONResponse:
    """Store instances of any studies."""
    return await _store(request, str(user.id), web, "")


@router.post("/studies/{study}")
async def store_instances_of_study(
    request: Request, user: Poster, web: Web, study: str
) -> JSONResponse:
    """Store instances of one study; those of others are refused."""
    return await _store(request, str(user.id), web, study)


async def _store(request: Request, user_id: str, web: DicomWeb, study: str) -> JSONResponse:
    require_json(request)
    try:
        posting = await run_in_threadpool(web.post, study, _boundary(request))
    except MalformedMultipart as error:
        raise _malformed(error, ()) from None
    try:
        await _take(request, posting, _limit(request, web))
    except MalformedMultipart as error:
        raise _malformed(error, posting.outcomes) from None
    except ClientDisconnect:
        raise Problem(408, "body-incomplete", "the body has not come to its end") from None
    finally:
        # At once, and not in a thread: this also has to be done while the server stops.
        posting.end()
    return await run_in_threadpool(_answer, request, user_id, web, posting.outcomes)


async def _take(request: Request, posting: Posting, limit_bytes: int) -> None:
    taken = 0
    async for piece in request.stream():
        taken += len(piece)
        if taken > limit_bytes:
            raise _too_long(limit_bytes)
        if piece:
            await run_in_threadpool(posting.take, piece)
    posting.close()


def _boundary(request: Request) -> str:
    media_type = parse_media_type(request.headers.get("content-type", ""))
    if media_type is None or media_type.name != MULTIPART or not covers(media_type.part, DICOM):
        raise Problem(
            415, "unsupported-media-type", f'only {MULTIPART}; type="{DICOM}" is taken here'
        )
    return media_type.parameters.get("boundary", "")


def _limit(request: Request, web: DicomWeb) -> int:
    """Return how long the body may be; one that says that it is longer is refused unread."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > web.longest_post_bytes:
        raise _too_long(web.longest_post_bytes)
    return web.longest_post_bytes


def _too_long(limit_bytes: int) -> Problem:
    return Problem(
        413, "body-too-long", f"at most {limit_bytes} bytes are taken: send fewer at a time"
    )


def _malformed(error: MalformedMultipart, outcomes: Sequence[Outcome]) -> Problem:
    kept = sum(outcome.is_stored for outcome in outcomes)
    return Problem(400, "malformed-multipart", f"{error}; {kept} instances before it were stored")


def _answer(
    request: Request, user_id: str, web: DicomWeb, outcomes: Sequence[Outcome]
) -> JSONResponse:
    if not outcomes:
        raise Problem(400, "no-parts", "the body has no part")
    status_code = stow_response.status_code(outcomes)
    stored = [outcome.sop_instance_uid for outcome in outcomes if outcome.is_stored]
    locations = dict(_locations(web.database, stored))
    _LOG.info(
        "instances.posted",
        user_id=user_id,
        count=len(outcomes),
        instance_count=len(stored),
        status_code=status_code,
    )
    return JSONResponse(
        stow_response.body(outcomes, locations, base_url(request)),
        status_code=status_code,
        media_type=DICOM_JSON,
        headers={"Retry-After": str(RETRY_AFTER_S)} if status_code == 503 else None,  # noqa: PLR2004
    )


def _locations(database: Database, uids: Sequence[str]) -> Iterator[tuple[str, Location]]:
    """Yield where instances were stored: the first of a UID says to which study it belongs."""
    columns = instance.c
    statement = select(
        columns.sop_instance_uid, columns.study_instance_uid, columns.series_instance_uid
    )
    for start in range(0, len(uids), _ASKED_AT_ONCE):
        wanted = columns.sop_instance_uid.in_(uids[start : start + _ASKED_AT_ONCE])
        with database.reading() as connection:
            for row in connection.execute(statement.where(wanted)):
                yield row.sop_instance_uid, (row.study_instance_uid, row.series_instance_uid)
