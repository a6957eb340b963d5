"""Cases as they are read from the database."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from admin_api import delivery_queries
from admin_api.case_views import (
    CaseDetail,
    CaseSummary,
    DeliveryView,
    Finding,
    HistoryItem,
    HoldView,
    InterventionView,
    ModelReading,
    Patient,
    SignatureView,
    Study,
)
from imaging_store.schema.administration import users
from imaging_store.schema.delivery import ehr_submission
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.workflow import (
    cases,
    destination_delivery,
    history,
    hold,
    inference_result,
    intervention,
    signature,
)
from message_contracts.case import CaseStatus, DeliveryState, Stage
from message_contracts.inference import InferenceCompleted


@dataclass(frozen=True)
class Wanted:
    """Which cases, and where the page begins."""

    limit: int
    status: Sequence[CaseStatus] = ()
    stage: Stage | None = None
    after: tuple[datetime, UUID] | None = None
    """When the last case of the page before was opened, and its id."""


def page(connection: Connection, wanted: Wanted) -> tuple[list[CaseSummary], bool]:
    """Return the cases of a page, the newest first, and whether there are more."""
    query = select(cases).order_by(cases.c.opened_at.desc(), cases.c.id.desc())
    rows = connection.execute(_filtered(query, wanted).limit(wanted.limit + 1)).all()
    shown = rows[: wanted.limit]
    return _summaries(connection, shown), len(rows) > wanted.limit


def _filtered(query: Select[Any], wanted: Wanted) -> Select[Any]:
    if wanted.status:
        query = query.where(cases.c.status.in_(wanted.status))
    if wanted.stage is not None:
        query = query.where(cases.c.stage == wanted.stage)
    if wanted.after is not None:
        opened_at, case_id = wanted.after
        query = query.where(
            or_(
                cases.c.opened_at < opened_at,
                and_(cases.c.opened_at == opened_at, cases.c.id < case_id),
            )
        )
    return query


def find(connection: Connection, case_id: UUID) -> Row[Any] | None:
    """Return a case's row."""
    return connection.execute(select(cases).where(cases.c.id == case_id)).one_or_none()


def version_shown(row: Row[Any]) -> int:
    """Return the version that readers see: at REPORT_READY the one whose report is in force."""
    version = row.version
    if row.status == CaseStatus.REPORT_READY and row.report_version is not None:
        version = row.report_version
    return int(version)


def _summaries(connection: Connection, rows: Sequence[Row[Any]]) -> list[CaseSummary]:
    shown = {row.id: version_shown(row) for row in rows}
    results = _of_versions(connection, inference_result, shown)
    deliveries = _of_versions(connection, destination_delivery, shown)
    modalities = _modalities(connection, [row.study_instance_uid for row in rows])
    return [
        CaseSummary(
            **_summary(row, results[row.id], deliveries[row.id]),
            modality=modalities.get(row.study_instance_uid),
        )
        for row in rows
    ]


def _of_versions(
    connection: Connection, table: Any, shown: dict[UUID, int]
) -> dict[UUID, list[Row[Any]]]:
    found: dict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(select(table).where(table.c.case_id.in_(shown))):
        if row.case_version == shown[row.case_id]:
            found[row.case_id].append(row)
    return found


def _modalities(connection: Connection, study_uids: Iterable[str]) -> dict[str, str]:
    # A modality of images comes before one of presentation states and reports.
    rows = connection.execute(
        select(instance.c.study_instance_uid, instance.c.modality)
        .where(instance.c.study_instance_uid.in_(list(study_uids)))
        .group_by(instance.c.study_instance_uid, instance.c.modality, instance.c.makes_version)
        .order_by(instance.c.makes_version, instance.c.modality.desc())
    )
    return {row.study_instance_uid: row.modality for row in rows if row.modality}


def _summary(
    row: Row[Any], results: Sequence[Row[Any]], deliveries: Sequence[Row[Any]]
) -> dict[str, Any]:
    completed = [
        InferenceCompleted.model_validate(result.completed)
        for result in results
        if result.completed is not None
    ]
    failed = next((result for result in results if result.failure), None)
    return {
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        "findings": [finding for each in completed for finding in _findings(each)],
        "uncertain": bool(completed) and all(each.uncertain for each in completed),
        "failure": failed and failed.failure,
        "refused": failed is not None and failed.refused,
        "partly_read": any(each.not_read for each in completed),
        "delivery": {each.destination: DeliveryState(each.state) for each in deliveries},
    }


_AS_THEY_ARE = (
    *("id", "status", "stage", "revision", "version", "report_version", "study_instance_uid"),
    *("on_hold", "hold_reason", "reason_code", "opened_at", "changed_at"),
)


def _findings(completed: InferenceCompleted) -> list[Finding]:
    return [
        Finding(
            label=each.label,
            code=each.code,
            probability=each.probability,
            model=completed.model.name,
            version=completed.model.version,
        )
        for each in completed.probabilities
    ]


def detail(connection: Connection, row: Row[Any], links: dict[str, str]) -> CaseDetail:
    """Return a case with all that there is about it."""
    (summary,) = _summaries(connection, [row])
    version = version_shown(row)
    results = _of_versions(connection, inference_result, {row.id: version})[row.id]
    deliveries = _of_versions(connection, destination_delivery, {row.id: version})[row.id]
    instances = delivery_queries.of_case(connection, row.id, version)
    waits = delivery_queries.waiting(connection, deliveries)
    patient, examined = _study(connection, row.study_instance_uid)
    return CaseDetail(
        **dict(summary),
        patient=patient,
        study=examined,
        readings=[_reading(result) for result in results],
        signatures=_signatures(connection, row.id, version),
        interventions=_interventions(connection, row.id),
        holds=_holds(connection, row.id),
        deliveries=[
            DeliveryView(
                destination=each.destination,
                kind=each.kind,
                version=each.case_version,
                state=each.state,
                reason=each.reason,
                changed_at=each.changed_at,
                **waits.get(each.destination, delivery_queries.NOT_WAITING),
                instances=instances.get(each.destination, []),
            )
            for each in sorted(deliveries, key=lambda each: str(each.destination))
        ],
        links=links,
    )


def _study(connection: Connection, uid: str) -> tuple[Patient | None, Study | None]:
    row = connection.execute(select(study).where(study.c.study_instance_uid == uid)).one_or_none()
    if row is None:
        return None, None
    count = connection.execute(
        select(func.count())
        .select_from(instance)
        .where(instance.c.study_instance_uid == uid, instance.c.excluded_at.is_(None))
    ).scalar_one()
    patient = Patient(
        patient_id=row.patient_id,
        issuer_of_patient_id=row.issuer_of_patient_id,
        name=row.patient_name,
        birth_date=row.patient_birth_date,
        sex=row.patient_sex,
    )
    examined = Study(
        accession_number=row.accession_number,
        study_id=row.study_id,
        description=row.study_description,
        started=row.started,
        referring_physician_name=row.referring_physician_name,
        institution_name=row.institution_name,
        instance_count=count,
    )
    return patient, examined


def _reading(row: Row[Any]) -> ModelReading:
    completed = row.completed or {}
    return ModelReading(
        model=row.model_name,
        version=row.model_version,
        requested_at=row.requested_at,
        answered_at=row.answered_at,
        uncertain=completed.get("uncertain"),
        uncertain_below=completed.get("uncertain_below"),
        weights_sha256=completed.get("weights_sha256"),
        device_uid=completed.get("device_uid"),
        failure=row.failure,
        refused=row.refused,
        not_read=completed.get("not_read", []),
    )


def _signatures(connection: Connection, case_id: UUID, version: int) -> list[SignatureView]:
    rows = connection.execute(
        select(signature)
        .where(signature.c.case_id == case_id, signature.c.case_version == version)
        .order_by(signature.c.signed_at)
    )
    return [SignatureView(name=row.printed_name, **_fields(SignatureView, row)) for row in rows]


def _interventions(connection: Connection, case_id: UUID) -> list[InterventionView]:
    rows = connection.execute(
        select(intervention).where(intervention.c.case_id == case_id).order_by(intervention.c.at)
    )
    return [
        InterventionView(name=row.printed_name, **_fields(InterventionView, row)) for row in rows
    ]


def _holds(connection: Connection, case_id: UUID) -> list[HoldView]:
    rows = connection.execute(
        select(hold)
        .where(hold.c.case_id == case_id, hold.c.ended_at.is_(None))
        .order_by(hold.c.began_at, hold.c.id)
    )
    return [
        HoldView(
            reason=row.reason,
            conflict_id=row.id if row.needs_decision else None,
            sop_instance_uid=row.sop_instance_uid,
            began_at=row.began_at,
            decided_at=row.decided_at,
        )
        for row in rows
    ]


def _fields(view: type[SignatureView | InterventionView], row: Row[Any]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in view.model_fields if name != "name"}


def history_of(connection: Connection, case_id: UUID) -> list[HistoryItem]:
    """Return the rows of a case's history, the oldest first."""
    names = {
        str(row.id): row.printed_name
        for row in connection.execute(select(users.c.id, users.c.printed_name))
    }
    rows = connection.execute(
        select(history).where(history.c.case_id == case_id).order_by(history.c.sequence)
    )
    return [
        HistoryItem.model_validate({**row._mapping, "actor_name": names.get(row.actor)})  # noqa: SLF001
        for row in rows
    ]


def completed_inference(connection: Connection, row: Row[Any]) -> InferenceCompleted | None:
    """Return what a model has read of the version shown; its pictures are named there."""
    results = _of_versions(connection, inference_result, {row.id: version_shown(row)})[row.id]
    for result in sorted(results, key=lambda each: (each.model_name, each.model_version)):
        if result.completed is not None:
            return InferenceCompleted.model_validate(result.completed)
    return None


def submission(connection: Connection, case_id: UUID, version: int) -> Row[Any] | None:
    """Return what the EHR bridge has rendered and sent of a signed version."""
    return connection.execute(
        select(ehr_submission).where(
            ehr_submission.c.case_id == case_id, ehr_submission.c.case_version == version
        )
    ).one_or_none()
