"""Verify that nothing was changed behind the history's back."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, select

from imaging_store.schema.workflow import cases as cases_table
from imaging_store.schema.workflow import (
    history,
    history_head,
    inference_result,
    intervention,
    signature,
)
from workflow_engine.case import Trigger
from workflow_engine.cases import reading_of, signature_of
from workflow_engine.findings import Reading, findings_digest
from workflow_engine.history import row_digest
from workflow_engine.signing import (
    MEANINGS,
    Act,
    Intervention,
    Signer,
    intervention_digest,
    signature_digest,
)

_NO_ROW_YET = "0" * 64


@dataclass(frozen=True)
class VerificationResult:
    """What was looked at, and what was found to be wrong."""

    rows: int
    """Of the history."""
    signatures: int
    faults: tuple[str, ...]
    """One sentence each; with ids, without a person's words."""

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return not self.faults


@dataclass
class _Told:
    """What the history tells of other tables."""

    signed: dict[str, Row[Any]] = field(default_factory=dict)
    intervened: dict[str, Row[Any]] = field(default_factory=dict)
    voided: set[str] = field(default_factory=set)
    last: dict[Any, Row[Any]] = field(default_factory=dict)
    held: set[Any] = field(default_factory=set)
    """Cases on hold."""
    report_versions: dict[Any, int] = field(default_factory=dict)


def verify(connection: Connection) -> VerificationResult:
    """Find what was changed, removed, inserted or cut off.

    The chain of the history is followed from its first row to its head; then signatures, the
    findings that were signed, people's other acts, and where each case is are held against it.
    ``connection`` is one for reading, without a transaction of its own.
    """
    with _one_moment(connection):
        told = _Told()
        faults = list(_faults_of_chain(connection, told))
        faults += _faults_of_signatures(connection, told)
        faults += _faults_of_interventions(connection, told)
        faults += _faults_of_cases(connection, told)
        head = connection.execute(select(history_head)).one_or_none()
        return VerificationResult(
            rows=head.sequence if head else 0, signatures=len(told.signed), faults=tuple(faults)
        )


@contextmanager
def _one_moment(connection: Connection) -> Iterator[None]:
    """Have every statement see the database as it is at one moment."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")
    else:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield
    finally:
        connection.exec_driver_sql("ROLLBACK")


def _faults_of_chain(connection: Connection, told: _Told) -> Iterator[str]:
    sequence, sha256 = 0, _NO_ROW_YET
    for row in connection.execute(select(history).order_by(history.c.sequence)):
        if row.sequence != sequence + 1:
            yield f"history: rows {sequence + 1} to {row.sequence - 1} are missing"
        elif row.previous_sha256 != sha256:
            yield f"history row {row.sequence}: does not follow the row before it"
        if row_digest(row) != row.sha256:
            yield f"history row {row.sequence}: was changed"
        sequence, sha256 = row.sequence, row.sha256
        _note(row, told)
    head = connection.execute(select(history_head)).one_or_none()
    if head is None:
        yield "history: its head is missing"
    elif head.sequence > sequence:
        yield f"history: rows {sequence + 1} to {head.sequence} were cut off"
    elif head.sequence < sequence:
        yield f"history: rows {head.sequence + 1} to {sequence} were added behind its back"
    elif head.sha256 != sha256:
        yield f"history row {sequence}: is not the one that was appended last"


def _note(row: Row[Any], told: _Told) -> None:
    if "signature_id" in row.details:
        told.signed[row.details["signature_id"]] = row
    if "intervention_id" in row.details:
        told.intervened[row.details["intervention_id"]] = row
    told.voided.update(row.details.get("voided", ()))
    told.last[row.case_id] = row
    if row.trigger == Trigger.APPROVED:
        told.report_versions[row.case_id] = row.case_version
    if row.details.get("on_hold", row.trigger == Trigger.HELD):
        told.held.add(row.case_id)
    elif "on_hold" in row.details or row.trigger == Trigger.HOLD_RELEASED:
        told.held.discard(row.case_id)


def _faults_of_signatures(connection: Connection, told: _Told) -> Iterator[str]:
    readings = _all_readings(connection)
    seen = set()
    for row in connection.execute(select(signature)):
        seen.add(str(row.id))
        noted = told.signed.get(str(row.id))
        if noted is None:
            yield f"signature {row.id}: the history does not know it"
            continue
        details = noted.details
        try:
            signed = signature_of(row)
            due = signature_digest(signed, details["findings_sha256"], details["earlier_sha256"])
            is_as_signed = due == details["content_sha256"] == row.content_sha256
        except (KeyError, ValueError):
            # Of a form that we never write.
            yield f"signature {row.id}: was changed"
            continue
        if not is_as_signed:
            yield f"signature {row.id}: was changed"
        elif row.meaning != MEANINGS[signed.stage]:
            yield f"signature {row.id}: its meaning was changed"
        if (str(row.id) in told.voided) != (row.voided_at is not None):
            yield f"signature {row.id}: was voided or put into force behind the history's back"
        of_version = readings.get((row.case_id, row.case_version), [])
        if findings_digest(of_version) != details["findings_sha256"]:
            yield f"signature {row.id}: the findings that were signed have changed"
    for missing in told.signed.keys() - seen:
        yield f"signature {missing}: was removed"


def _all_readings(connection: Connection) -> dict[tuple[Any, int], list[Reading]]:
    readings: dict[tuple[Any, int], list[Reading]] = defaultdict(list)
    for row in connection.execute(select(inference_result)):
        # What is of no form that we write is missing where the digest is taken again.
        with suppress(ValueError):
            readings[row.case_id, row.case_version].append(reading_of(row))
    return readings


def _faults_of_interventions(connection: Connection, told: _Told) -> Iterator[str]:
    seen = set()
    for row in connection.execute(select(intervention)):
        seen.add(str(row.id))
        noted = told.intervened.get(str(row.id))
        if noted is None:
            yield f"intervention {row.id}: the history does not know it"
            continue
        try:
            sha256 = intervention_digest(_intervention_of(row))
            is_as_done = sha256 == row.content_sha256 == noted.details["content_sha256"]
        except (KeyError, ValueError):
            is_as_done = False
        if not is_as_done:
            yield f"intervention {row.id}: was changed"
    for missing in told.intervened.keys() - seen:
        yield f"intervention {missing}: was removed"


def _intervention_of(row: Row[Any]) -> Intervention:
    return Intervention(
        id=row.id,
        case_id=row.case_id,
        case_version=row.case_version,
        act=Act(row.act),
        signer=Signer(row.user_id, row.printed_name, row.role, row.authentication),
        reason_code=row.reason_code,
        notes=row.notes,
        at=row.at,
    )


def _faults_of_cases(connection: Connection, told: _Told) -> Iterator[str]:
    seen = set()
    for row in connection.execute(select(cases_table)):
        seen.add(row.id)
        noted = told.last.get(row.id)
        if noted is None:
            yield f"case {row.id}: the history does not know it"
        elif (row.status, row.stage, row.version) != (
            noted.to_status,
            noted.stage,
            noted.case_version,
        ):
            yield f"case {row.id}: is not where the history says it is"
        elif row.on_hold != (row.id in told.held):
            yield f"case {row.id}: was put on hold or released behind the history's back"
        elif row.report_version != told.report_versions.get(row.id):
            yield f"case {row.id}: another report is in force than the history says"
    for missing in told.last.keys() - seen:
        yield f"case {missing}: was removed"
