"""Cases, readings and signatures in the database. The one writer of these tables."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, insert, select, update

from imaging_store.schema.workflow import (
    cases,
    inference_result,
    intervention,
    signature,
)
from message_contracts.case import CaseStatus, Stage
from message_contracts.inference import InferenceCompleted, InferenceFailed, ModelReference
from workflow_engine import history
from workflow_engine.case import Case, Trigger, open_case
from workflow_engine.findings import Reading, findings_of, said
from workflow_engine.history import Entry
from workflow_engine.refusals import StaleCase
from workflow_engine.signing import (
    MEANINGS,
    Decision,
    Intervention,
    Signature,
    Signer,
    intervention_digest,
)


def find(connection: Connection, case_id: UUID) -> Case | None:
    """Return a case, locked until the transaction ends."""
    row = connection.execute(
        select(cases).where(cases.c.id == case_id).with_for_update()
    ).one_or_none()
    return None if row is None else case_of(row)


def case_of(row: Row[Any]) -> Case:
    """Return the case that a row of ``cases`` is."""
    return Case(
        id=row.id,
        study_instance_uid=row.study_instance_uid,
        status=CaseStatus(row.status),
        stage=Stage(row.stage) if row.stage else None,
        version=row.version,
        revision=row.revision,
        report_version=row.report_version,
        on_hold=row.on_hold,
        hold_reason=row.hold_reason,
        reason_code=row.reason_code,
        opened_at=row.opened_at,
        changed_at=row.changed_at,
    )


def find_or_open(connection: Connection, study_instance_uid: str, at: datetime) -> Case:
    """Return the case of a study, opened where this is the first that is heard of it."""
    opened = open_case(study_instance_uid, at)
    found = find(connection, opened.id)
    if found is not None:
        return found
    connection.execute(insert(cases), asdict(opened))
    history.append(connection, None, opened, Entry(Trigger.OPENED, at))
    return opened


def change(connection: Connection, before: Case, after: Case, entry: Entry) -> None:
    """Keep what has become of a case, and tell its history.

    Raises
    ------
    StaleCase
        Somebody else has changed it since ``before`` was read.
    """
    values = asdict(after)
    changed = connection.execute(
        update(cases)
        .where(cases.c.id == before.id, cases.c.revision == before.revision)
        .values(values)
    )
    if changed.rowcount != 1:
        raise StaleCase("the case has changed meanwhile: read it again")
    history.append(connection, before, after, entry)


def readings(connection: Connection, case_id: UUID, case_version: int) -> tuple[Reading, ...]:
    """Return what the models asked about a version have said so far."""
    rows = connection.execute(
        select(inference_result)
        .where(
            inference_result.c.case_id == case_id, inference_result.c.case_version == case_version
        )
        .order_by(inference_result.c.model_name, inference_result.c.model_version)
    )
    return tuple(reading_of(row) for row in rows)


def reading_of(row: Row[Any]) -> Reading:
    """Return the reading that a row of ``inference_result`` is."""
    return Reading(
        model_name=row.model_name,
        model_version=row.model_version,
        completed=None
        if row.completed is None
        else InferenceCompleted.model_validate(row.completed),
        failure=row.failure,
        refused=row.refused,
    )


def ask(connection: Connection, case: Case, asked: ModelReference, at: datetime) -> None:
    """Note that a model has been asked about the version under way."""
    connection.execute(
        insert(inference_result),
        {
            "case_id": case.id,
            "case_version": case.version,
            "model_name": asked.name,
            "model_version": asked.version,
            "requested_at": at,
        },
    )


def answer(
    connection: Connection, body: InferenceCompleted | InferenceFailed, at: datetime
) -> None:
    """Keep what a model has answered, with what models are watched by beside it."""
    heard = said(body)
    [found] = findings_of([heard]) or [None]
    completed = heard.completed
    given = body.given
    connection.execute(
        update(inference_result)
        .where(
            inference_result.c.case_id == body.case_id,
            inference_result.c.case_version == body.case_version,
            inference_result.c.model_name == body.model.name,
            inference_result.c.model_version == body.model.version,
        )
        .values(
            answered_at=at,
            completed=None if completed is None else completed.model_dump(mode="json"),
            failure=heard.failure,
            refused=heard.refused,
            label=None if found is None else found.label,
            probability=None if found is None else found.probability,
            domain_distance=None if given is None else given.domain_distance,
            brightness=None if given is None else given.brightness,
            contrast=None if given is None else given.contrast,
        )
    )


def signatures(connection: Connection, case_id: UUID, case_version: int) -> tuple[Signature, ...]:
    """Return every signature of a version, voided ones too, oldest first."""
    rows = connection.execute(
        select(signature)
        .where(signature.c.case_id == case_id, signature.c.case_version == case_version)
        .order_by(signature.c.signed_at, signature.c.id)
    )
    return tuple(signature_of(row) for row in rows)


def signature_of(row: Row[Any]) -> Signature:
    """Return the signature that a row of ``signature`` is."""
    return Signature(
        id=row.id,
        case_id=row.case_id,
        case_version=row.case_version,
        stage=Stage(row.stage),
        signer=Signer(row.user_id, row.printed_name, row.role, row.authentication),
        decision=Decision(row.decision) if row.decision else None,
        finding=row.finding,
        notes=row.notes,
        signed_at=row.signed_at,
        content_sha256=row.content_sha256,
        voided_at=row.voided_at,
    )


def keep_signature(connection: Connection, signed: Signature) -> None:
    """Keep a signature."""
    values = {key: value for key, value in asdict(signed).items() if key != "signer"}
    connection.execute(
        insert(signature),
        {**values, **asdict(signed.signer), "meaning": MEANINGS[signed.stage]},
    )


def void(connection: Connection, voided: Iterable[Signature], at: datetime) -> list[str]:
    """Take signatures out of force; return their ids as the history tells them."""
    ids = [each.id for each in voided]
    if ids:
        connection.execute(update(signature).where(signature.c.id.in_(ids)).values(voided_at=at))
    return [str(each) for each in ids]


def unfinished_signatures(connection: Connection, case: Case) -> tuple[Signature, ...]:
    """Return the signatures in force that no signed report stands on."""
    rows = connection.execute(
        select(signature)
        .where(
            signature.c.case_id == case.id,
            signature.c.voided_at.is_(None),
            # Earlier reports were signed too, and stay so when another takes their place.
            signature.c.case_version > (case.report_version or 0),
        )
        .order_by(signature.c.signed_at)
    )
    return tuple(signature_of(row) for row in rows)


def keep_intervention(connection: Connection, done: Intervention) -> str:
    """Keep a person's act and words; return their digest."""
    sha256 = intervention_digest(done)
    values = {key: value for key, value in asdict(done).items() if key != "signer"}
    connection.execute(
        insert(intervention), {**values, **asdict(done.signer), "content_sha256": sha256}
    )
    return sha256
