"""Searches as queries of the database: the same on SQLite and PostgreSQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, func, or_, select, true

from dicom_listener.dicomweb.offered import (
    instances_offered,
    offered,
    results_of_modalities,
    results_offered,
)
from dicom_listener.dicomweb.search_parameters import Match, OneOf, Range, Search, Text
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.results import result_object
from imaging_store.schema.workflow import cases

Rows = Sequence[Row[Any]]

_STUDY_COLUMNS = {
    "AccessionNumber": study.c.accession_number,
    "PatientID": study.c.patient_id,
    "IssuerOfPatientID": study.c.issuer_of_patient_id,
    "PatientBirthDate": study.c.patient_birth_date,
    "PatientSex": study.c.patient_sex,
    "StudyInstanceUID": study.c.study_instance_uid,
    "StudyID": study.c.study_id,
    "StudyDescription": study.c.study_description,
    "InstitutionName": study.c.institution_name,
}
_NAMES = {
    "PatientName": study.c.patient_name,
    "ReferringPhysicianName": study.c.referring_physician_name,
}
_TIME_OF_DAY = func.substr(study.c.started, 12, 8)
_OFFERED_COLUMNS = {
    "Modality": "modality",
    "SeriesInstanceUID": "series_instance_uid",
    "SeriesNumber": "series_number",
    "SeriesDescription": "series_description",
    "SOPClassUID": "sop_class_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "InstanceNumber": "instance_number",
}
_NUMBERS = {"SeriesNumber", "InstanceNumber"}
_MOST_STUDIES = 5000
_OF_STUDY = {*_STUDY_COLUMNS, *_NAMES, "StudyDate", "StudyTime", "ModalitiesInStudy"}
_ESCAPE = "\\"


@dataclass(slots=True)
class StudyContent:
    """What is offered of a study."""

    modalities: set[str] = field(default_factory=set)
    series: set[str] = field(default_factory=set)
    instance_count: int = 0


def find_studies(connection: Connection, search: Search, role: str) -> Rows:
    """Return a page of studies and one more where there is one, the newest first."""
    statement = (
        select(study)
        .where(_has_content(search.matches, role), *_of_study(search.matches))
        .order_by(study.c.started.desc(), study.c.study_instance_uid.desc())
        .limit(search.limit + 1)
        .offset(search.offset)
    )
    return connection.execute(statement).all()


def content_of(
    connection: Connection, study_instance_uids: Iterable[str], role: str
) -> Mapping[str, StudyContent]:
    """Return what is offered of studies."""
    columns = offered(role).c
    grouped = (columns.study_instance_uid, columns.series_instance_uid, columns.modality)
    uids = list(study_instance_uids)
    content = {uid: StudyContent() for uid in uids}
    rows = connection.execute(
        select(*grouped, func.count().label("instance_count"))
        .where(columns.study_instance_uid.in_(uids))
        .group_by(*grouped)
    )
    for row in rows:
        of_study = content[row.study_instance_uid]
        of_study.series.add(row.series_instance_uid)
        of_study.modalities.add(row.modality)
        of_study.instance_count += row.instance_count
    return content


def find_series(connection: Connection, search: Search, role: str) -> Rows:
    """Return a page of series and one more where there is one, those of a study together."""
    columns = offered(role).c
    grouped = (columns.study_instance_uid, columns.series_instance_uid)
    statement = (
        select(
            *grouped,
            func.min(columns.modality).label("modality"),
            func.min(columns.series_number).label("series_number"),
            func.max(columns.series_description).label("series_description"),
            func.min(columns.key).label("key"),
            func.min(columns.transfer_syntax_uid).label("transfer_syntax_uid"),
            func.count().label("instance_count"),
        )
        .where(*_of_instance(columns, search), _of_studies(connection, columns, search, role))
        .group_by(*grouped)
        .order_by(*grouped)
        .limit(search.limit + 1)
        .offset(search.offset)
    )
    return connection.execute(statement).all()


def find_instances(connection: Connection, search: Search, role: str) -> Rows:
    """Return a page of instances and one more where there is one, those of a series together."""
    table = offered(role)
    columns = table.c
    statement = (
        select(table)
        .where(*_of_instance(columns, search), _of_studies(connection, columns, search, role))
        .order_by(
            columns.study_instance_uid,
            columns.series_instance_uid,
            columns.instance_number,
            columns.sop_instance_uid,
        )
        .limit(search.limit + 1)
        .offset(search.offset)
    )
    return connection.execute(statement).all()


def studies_by_uid(connection: Connection, uids: Iterable[str]) -> Mapping[str, Row[Any]]:
    """Return the rows of studies by their UIDs."""
    wanted = study.c.study_instance_uid.in_(list(uids))
    rows = connection.execute(select(study).where(wanted))
    return {row.study_instance_uid: row for row in rows}


def _has_content(matches: Mapping[str, Match], role: str) -> ColumnElement[bool]:
    of_study = instance.c.study_instance_uid == study.c.study_instance_uid
    received = [of_study, instances_offered()]
    made = [
        result_object.c.study_instance_uid == study.c.study_instance_uid,
        # A study's results and its case carry one UID; by it the case is found by an index.
        cases.c.study_instance_uid == study.c.study_instance_uid,
        results_offered(role),
    ]
    modalities = matches.get("ModalitiesInStudy")
    if isinstance(modalities, OneOf):
        received.append(instance.c.modality.in_(modalities.values))
        made.append(results_of_modalities(modalities.values))
    return or_(exists().where(*received), exists().where(*made))


def _of_study(matches: Mapping[str, Match]) -> list[ColumnElement[bool]]:
    conditions = []
    for keyword, match in matches.items():
        if keyword == "StudyDate":
            conditions += _in_range(study.c.started, match)
        elif keyword == "StudyTime":
            conditions += [_TIME_OF_DAY != "", *_in_range(_TIME_OF_DAY, match)]
        elif keyword in _NAMES and isinstance(match, Text):
            conditions.append(_named(_NAMES[keyword], match.pattern))
        elif keyword in _STUDY_COLUMNS:
            conditions.append(_matching(_STUDY_COLUMNS[keyword], match))
    return conditions


def _of_instance(columns: Any, search: Search) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for keyword, name in _OFFERED_COLUMNS.items():
        match = search.matches.get(keyword)
        if isinstance(match, OneOf) and keyword in _NUMBERS:
            conditions.append(columns[name].in_([int(value) for value in match.values]))
        elif match is not None:
            conditions.append(_matching(columns[name], match))
    return conditions


def _of_studies(
    connection: Connection, columns: Any, search: Search, role: str
) -> ColumnElement[bool]:
    """Return what holds of rows whose study is asked for.

    The studies are looked up first, as far as they are not too many: databases do not see by
    themselves that a few studies are a small part of a table of everything.
    """
    wanted: ColumnElement[str] = columns.study_instance_uid
    matches = search.matches
    uids = matches.get("StudyInstanceUID")
    of_study = {keyword: each for keyword, each in matches.items() if keyword in _OF_STUDY}
    if isinstance(uids, OneOf) and of_study.keys() == {"StudyInstanceUID"}:
        return wanted.in_(uids.values)
    if not of_study and len(matches) > 0:
        return true()
    found = select(study.c.study_instance_uid).where(*_of_study(of_study))
    if "ModalitiesInStudy" in of_study or not matches:
        found = found.where(_has_content(of_study, role))
    most = _MOST_STUDIES + 1
    if not matches:
        # Every study has one at least, so that a page is of no more studies than this.
        found = found.order_by(study.c.study_instance_uid)
        most = min(most, search.offset + search.limit + 1)
    known = connection.execute(found.limit(most)).scalars().all()
    if len(known) > _MOST_STUDIES:
        return wanted.in_(found)
    return wanted.in_(known)


def _matching(column: ColumnElement[Any], match: Match) -> ColumnElement[bool]:
    if isinstance(match, OneOf):
        return column.in_(match.values)
    if isinstance(match, Text) and ("*" in match.pattern or "?" in match.pattern):
        return column.ilike(_like(match.pattern), escape=_ESCAPE)
    assert isinstance(match, Text)  # noqa: S101 - ranges are of dates and times
    return column == match.pattern


def _named(column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """Match a PN, or any one component group of it, whatever the case (PS3.4 §C.2.2.2.1)."""
    like = _like(pattern)
    return or_(
        *(
            column.ilike(each, escape=_ESCAPE)
            for each in (like, f"{like}=%", f"%={like}", f"%={like}=%")
        )
    )


def _like(pattern: str) -> str:
    for special in (_ESCAPE, "%", "_"):
        pattern = pattern.replace(special, _ESCAPE + special)
    return pattern.replace("*", "%").replace("?", "_")


def _in_range(column: ColumnElement[Any], match: Match) -> list[ColumnElement[bool]]:
    assert isinstance(match, Range)  # noqa: S101 - dates and times are parsed to ranges
    # What has no date at all is in no range.
    conditions = [column >= match.low] if match.low else [column != ""]
    return [*conditions, column < match.end] if match.end else conditions
