"""QIDO-RS: searches (PS3.18 §10.6)."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from dicom_listener.dicomweb import search, search_results
from dicom_listener.dicomweb.dicom_json import Json, encoded
from dicom_listener.dicomweb.installation import DicomWeb, Reader, Web, base_url
from dicom_listener.dicomweb.media_types import DICOM_JSON, acceptable
from dicom_listener.dicomweb.search import Rows
from dicom_listener.dicomweb.search_parameters import InvalidSearch, Level, Search, parse_search
from dicom_listener.instance_header import InstanceHeader, NotUnderstood, parse_header
from imaging_pixels.file_meta import NotPart10, parse_file_meta
from imaging_store.accounts import Account
from imaging_store.instances import NotInStore
from service_runtime.problem_details import Problem

router = APIRouter()


@router.get("/studies")
def search_studies(request: Request, user: Reader, web: Web) -> Response:
    """Search for studies."""
    return _answer(request, user, web, Level.STUDY, {})


@router.get("/series")
def search_series(request: Request, user: Reader, web: Web) -> Response:
    """Search for series of all studies."""
    return _answer(request, user, web, Level.SERIES, {})


@router.get("/studies/{study}/series")
def search_series_of_study(request: Request, user: Reader, web: Web, study: str) -> Response:
    """Search for series of a study."""
    return _answer(request, user, web, Level.SERIES, {"StudyInstanceUID": study})


@router.get("/instances")
def search_instances(request: Request, user: Reader, web: Web) -> Response:
    """Search for instances of all studies."""
    return _answer(request, user, web, Level.INSTANCE, {})


@router.get("/studies/{study}/instances")
def search_instances_of_study(request: Request, user: Reader, web: Web, study: str) -> Response:
    """Search for instances of a study."""
    return _answer(request, user, web, Level.INSTANCE, {"StudyInstanceUID": study})


@router.get("/studies/{study}/series/{series}/instances")
def search_instances_of_series(
    request: Request, user: Reader, web: Web, study: str, series: str
) -> Response:
    """Search for instances of a series."""
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
    return _answer(request, user, web, Level.INSTANCE, uids)


def _answer(
    request: Request, user: Account, web: DicomWeb, level: Level, uids: Mapping[str, str]
) -> Response:
    require_json(request)
    try:
        asked = parse_search(level, request.query_params.multi_items(), uids)
    except InvalidSearch as error:
        raise Problem(400, "invalid-search", str(error)) from None
    url = base_url(request)
    found = _Search(web, user.role, url, asked)
    with web.database.reading() as connection:
        results, is_more = found.run(connection)
    return Response(
        encoded(results) if results else b"",
        status_code=200 if results else 204,
        media_type=DICOM_JSON if results else None,
        headers=_warnings(url, asked, is_more=is_more),
    )


def require_json(request: Request) -> None:
    """Refuse a request that does not take DICOM JSON, before anything is done.

    Raises
    ------
    Problem
        406.
    """
    wanted = acceptable(request.headers.getlist("accept"))
    names = (DICOM_JSON, "application/json")
    if not any(media_type.covers(name) for media_type in wanted for name in names):
        raise Problem(406, "not-acceptable", f"only {DICOM_JSON} is offered here")


def _warnings(url: str, asked: Search, *, is_more: bool) -> dict[str, str]:
    """Return the Warning of an answer that is less than was asked for (PS3.18 §8.3.4)."""
    said = []
    if asked.is_fuzzy:
        said.append(
            "The fuzzymatching parameter is not supported. "
            "Only literal matching has been performed."
        )
    if is_more:
        following = asked.offset + asked.limit
        said.append(f"There are additional results that can be requested from offset {following}")
    return {"Warning": ", ".join(f'299 {url}: "{text}"' for text in said)} if said else {}


class _Search:
    """One search, and its rows as results."""

    def __init__(self, web: DicomWeb, role: str, url: str, asked: Search) -> None:
        self._web = web
        self._role = role
        self._url = url
        self._asked = asked

    def run(self, connection: Connection) -> tuple[list[Json], bool]:
        """Return the results, and whether there are more."""
        asked = self._asked
        if asked.limit == 0:
            return [], False
        if asked.level is Level.STUDY:
            rows = search.find_studies(connection, asked, self._role)
            page = rows[: asked.limit]
            return self._studies(connection, page), len(rows) > len(page)
        find = search.find_series if asked.level is Level.SERIES else search.find_instances
        rows = find(connection, asked, self._role)
        page = rows[: asked.limit]
        one = self._series if asked.level is Level.SERIES else self._instance
        results = [one(row) for row in page]
        # Where the path names no study, its attributes come with each result (PS3.18 §10.6.3.3).
        if "StudyInstanceUID" not in asked.matches:
            results = self._with_studies(connection, page, results)
        return results, len(rows) > len(page)

    def _studies(self, connection: Connection, rows: Rows) -> list[Json]:
        uids = [row.study_instance_uid for row in rows]
        content = search.content_of(connection, uids, self._role)
        return [
            search_results.merged(
                search_results.study_json(row, self._study_url(row)),
                search_results.content_json(content[row.study_instance_uid]),
            )
            for row in rows
        ]

    def _with_studies(
        self, connection: Connection, rows: Rows, results: Sequence[Json]
    ) -> list[Json]:
        studies = search.studies_by_uid(connection, {row.study_instance_uid for row in rows})
        return [
            search_results.merged(
                search_results.study_json(studies[row.study_instance_uid], ""), result
            )
            for row, result in zip(rows, results, strict=True)
        ]

    def _series(self, row: Any) -> Json:
        url = f"{self._study_url(row)}/series/{row.series_instance_uid}"
        if row.series_number is None and not row.series_description:
            row = self._from_file(row)
        return search_results.series_json(row, url)

    def _instance(self, row: Any) -> Json:
        series = f"{self._study_url(row)}/series/{row.series_instance_uid}"
        url = f"{series}/instances/{row.sop_instance_uid}"
        return search_results.instance_json(self._from_file(row) if row.is_result else row, url)

    def _study_url(self, row: Any) -> str:
        return f"{self._url}/studies/{row.study_instance_uid}"

    def _from_file(self, row: Any) -> Any:
        """Return a row with what only the instance itself tells: results are not indexed so far."""
        header = self._header(row.key)
        if header is None:
            return row
        shared = header.shared
        return SimpleNamespace(
            **{
                **row._mapping,  # noqa: SLF001 - SQLAlchemy's public name for it
                "series_number": shared.series_number,
                "series_description": shared.series_description,
                "rows": shared.rows,
                "columns": shared.columns,
                "number_of_frames": shared.number_of_frames,
            }
        )

    def _header(self, key: str) -> InstanceHeader | None:
        try:
            with self._web.store.open(key) as file:
                meta = parse_file_meta(file.read(4096), whole=True)
                if meta is None:
                    return None
                file.seek(meta.size_bytes)
                return parse_header(file, meta.transfer_syntax_uid)
        except (NotInStore, NotPart10, NotUnderstood):
            return None
