"""Reading cases: worklists, one case, its history, and what was made of it."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import Connection, Row

from admin_api import case_queries
from admin_api.case_queries import Wanted
from admin_api.case_views import CaseDetail, CasePage, History
from admin_api.identity import SignedIn
from admin_api.installation import Api, ApiDependency
from imaging_store.instances import NotInStore
from message_contracts.case import CaseStatus, Stage
from service_runtime.problem_details import RETRY_AFTER_S, Problem

router = APIRouter(tags=["cases"])

CaseId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        json_schema_extra={"format": "uuid"},
    ),
]
"""A case's id; checked by a pattern, whose complaint quotes nothing."""

_DEFAULT_LIMIT = 50
_LARGEST_LIMIT = 200
_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}
_PDF: dict[int | str, dict[str, Any]] = {200: {"content": {"application/pdf": {}}}}
_FHIR = "application/fhir+json"


@router.get("/cases")
def list_cases(
    _user: SignedIn,
    api: ApiDependency,
    status: Annotated[list[CaseStatus] | None, Query()] = None,
    stage: Stage | None = None,
    limit: Annotated[int, Query(ge=1, le=_LARGEST_LIMIT)] = _DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> CasePage:
    """List cases, the newest first; ``next`` is the cursor of the page that follows."""
    after = _after(cursor) if cursor else None
    with api.database.reading() as connection:
        items, more = case_queries.page(
            connection, Wanted(limit=limit, status=status or (), stage=stage, after=after)
        )
    return CasePage(items=items, next=_cursor(items[-1].opened_at, items[-1].id) if more else None)


@router.get("/cases/{case_id}")
def read_case(_user: SignedIn, api: ApiDependency, case_id: CaseId) -> CaseDetail:
    """Read one case with all that a person needs who is to sign it."""
    return case_detail(api, UUID(case_id))


@router.get("/cases/{case_id}/history")
def read_history(_user: SignedIn, api: ApiDependency, case_id: CaseId) -> History:
    """Read all that happened to a case, with the digests that chain it together."""
    with api.database.reading() as connection:
        row = case_row(connection, UUID(case_id))
        return History(items=case_queries.history_of(connection, row.id))


@router.get("/cases/{case_id}/heatmap.png", response_class=Response, responses=_PNG)
def read_heatmap(_user: SignedIn, api: ApiDependency, case_id: CaseId) -> Response:
    """Get the source image with the model's heat map over it."""
    return _picture(api, UUID(case_id), "heatmap_key")


@router.get("/cases/{case_id}/source.png", response_class=Response, responses=_PNG)
def read_source(_user: SignedIn, api: ApiDependency, case_id: CaseId) -> Response:
    """Get the source image as the model was shown it, of the heat map's size."""
    return _picture(api, UUID(case_id), "source_key")


@router.get("/cases/{case_id}/report.pdf", response_class=Response, responses=_PDF)
def read_report(_user: SignedIn, api: ApiDependency, case_id: CaseId) -> Response:
    """Get the signed report that is in force."""
    key = _submission(api, UUID(case_id)).pdf_key
    return kept(api, key, "application/pdf")


@router.get(
    "/cases/{case_id}/diagnostic-report.json",
    response_class=Response,
    responses={200: {"content": {_FHIR: {}}}},
)
def read_diagnostic_report(_user: SignedIn, api: ApiDependency, case_id: CaseId) -> Response:
    """Get the FHIR DiagnosticReport (R4) of the signed report that is in force."""
    bundle = json.loads(bytes(kept(api, _submission(api, UUID(case_id)).bundle_key, _FHIR).body))
    for entry in bundle.get("entry", ()):
        resource = entry.get("resource", {})
        if resource.get("resourceType") == "DiagnosticReport":
            content = json.dumps(resource, ensure_ascii=False).encode()
            return Response(content, media_type=_FHIR)
    raise Problem(404, "no-diagnostic-report", "the report that was sent holds none")


def case_detail(api: Api, case_id: UUID) -> CaseDetail:
    """Return a case as it is now."""
    with api.database.reading() as connection:
        row = case_row(connection, case_id)
        return case_queries.detail(connection, row, _links(connection, row))


def case_row(connection: Connection, case_id: UUID) -> Row[Any]:
    """Return a case's row.

    Raises
    ------
    Problem
        404 where there is none.
    """
    row = case_queries.find(connection, case_id)
    if row is None:
        raise Problem(404, "unknown-case", "there is no case of this id")
    return row


def _links(connection: Connection, row: Row[Any]) -> dict[str, str]:
    names = ["history"]
    if case_queries.completed_inference(connection, row) is not None:
        names += ["heatmap.png", "source.png", "explanations"]
    version = row.report_version
    if version is not None and case_queries.submission(connection, row.id, version) is not None:
        names += ["report.pdf", "diagnostic-report.json"]
    return {name: f"/api/v1/cases/{row.id}/{name}" for name in names}


def _picture(api: Api, case_id: UUID, key_name: str) -> Response:
    with api.database.reading() as connection:
        completed = case_queries.completed_inference(connection, case_row(connection, case_id))
    if completed is None:
        raise Problem(404, "no-picture", "no model has read the version of the case that is shown")
    return kept(api, getattr(completed, key_name), "image/png")


def _submission(api: Api, case_id: UUID) -> Row[Any]:
    with api.database.reading() as connection:
        row = case_row(connection, case_id)
        if row.report_version is None:
            raise Problem(404, "report-not-signed", "the case has no signed report yet")
        found = case_queries.submission(connection, case_id, row.report_version)
    if found is None:
        raise Problem(
            404,
            "report-not-rendered",
            "the report is signed and being rendered: try again",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    return found


def kept(api: Api, key: str, media_type: str) -> Response:
    """Return what the store keeps under a key.

    Raises
    ------
    Problem
        404 where it is not there any more.
    """
    try:
        content = api.store.read(key)
    except NotInStore:
        raise Problem(404, "not-in-store", "the instance store does not have it any more") from None
    # A patient's: no cache on the way may keep it.
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-store"})


def _cursor(opened_at: datetime, case_id: UUID) -> str:
    text = f"{opened_at.isoformat()} {case_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _after(cursor: str) -> tuple[datetime, UUID]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, _, case_id = base64.urlsafe_b64decode(padded.encode()).decode().partition(" ")
        opened_at = datetime.fromisoformat(moment)
        return opened_at.replace(tzinfo=opened_at.tzinfo or UTC).astimezone(UTC), UUID(case_id)
    except (ValueError, OverflowError, binascii.Error):
        raise Problem(422, "invalid-request", "at fault: query.cursor") from None
