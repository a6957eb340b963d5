"""Carries out what a person has decided about a conflict, in one transaction with the answer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Row, Select, exists, select, update

from dicom_listener.announcements import SOURCE
from dicom_listener.announcer import announce_settled
from dicom_listener.arrival import Arrival, study_attributes
from dicom_listener.arrivals import enter
from dicom_listener.conflicts import ConflictKind
from dicom_listener.instance_header import NotUnderstood
from dicom_listener.places import exchange, put_aside
from dicom_listener.rereading import Rereader, Source
from imaging_store.instances import Kept, NotInStore
from imaging_store.schema.ingest import (
    conflict,
    conflicting_instance,
    duplicate_instance,
    instance,
    study,
)
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from message_contracts.intake import (
    ConflictDecided,
    ConflictDecision,
    ConflictSettled,
    ConflictUnsettled,
    UnsettledReason,
)
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Effect

log = structlog.get_logger()


class CannotBeSettled(PermanentError):
    """There is no such conflict."""


class _Unsettled(Exception):
    """What is to take the place is not there."""

    def __init__(self, reason: UnsettledReason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Settlement:
    """The handler of ``conflict.decided``."""

    database: Database
    rereader: Rereader
    now: Callable[[], datetime]

    def on_conflict_decided(self, envelope: Envelope) -> Effect:
        """Do what was decided; what takes another's place is read before.

        Where that is not there any more nothing changes, and a person decides anew.

        Raises
        ------
        CannotBeSettled
            There is no such conflict.
        """
        decided = envelope.data(ConflictDecided)
        with self.database.reading() as connection:
            row = connection.execute(
                select(conflict).where(conflict.c.id == decided.conflict_id)
            ).first()
            if row is None:
                raise CannotBeSettled("conflict_id: there is no such conflict")
            if not _is_awaited(row, decided):
                return lambda _: None
            try:
                newcomers = self._newcomers(connection, row, decided.decision)
            except _Unsettled as error:
                return partial(_take_back, envelope, error.reason, self.now())
        return partial(_settle, envelope, newcomers, self.now())

    def on_exhausted(self, envelope: Envelope) -> Effect:
        """Have a person decide anew what could not be carried out for whatever other reason."""
        return partial(_take_back, envelope, UnsettledReason.NOT_CARRIED_OUT, self.now())

    def _newcomers(
        self, connection: Connection, row: Row[Any], decision: ConflictDecision
    ) -> list[Arrival]:
        """Return what is to take another's place, read anew."""
        if decision is not ConflictDecision.REPLACE:
            return []
        statement = _members(row)
        if row.kind == ConflictKind.IDENTITY:
            # All of them name the same patient.
            statement = statement.limit(1)
        newcomers = [self._newcomer(kept) for kept in connection.execute(statement)]
        if not newcomers:
            raise _Unsettled(UnsettledReason.NEWCOMER_NOT_KEPT)
        return newcomers

    def _newcomer(self, row: Row[Any]) -> Arrival:
        source = Source(row.transfer_syntax_uid, row.calling_ae_title, row.called_ae_title)
        kept = Kept(row.key, row.size_bytes, row.digest)
        try:
            return self.rereader.arrival(kept, source, self.now())
        except NotInStore as error:
            raise _Unsettled(UnsettledReason.NEWCOMER_NOT_KEPT) from error
        except NotUnderstood as error:
            raise _Unsettled(UnsettledReason.NEWCOMER_NOT_READABLE) from error


def _is_awaited(row: Row[Any], decided: ConflictDecided) -> bool:
    """Whether a decision is still the one to be carried out: not done before, nor taken back."""
    return row.decision is None and row.unsettled == decided.decided_before


def _members(row: Row[Any]) -> Select[Any]:
    """Select what shows a conflict: instances where it is about identity, else duplicates."""
    table = instance if row.kind == ConflictKind.IDENTITY else duplicate_instance
    return (
        select(table)
        .join(
            conflicting_instance,
            (conflicting_instance.c.sop_instance_uid == table.c.sop_instance_uid)
            & (conflicting_instance.c.digest == table.c.digest),
        )
        .where(conflicting_instance.c.conflict_id == row.id)
        .order_by(table.c.sop_instance_uid, table.c.received_at)
    )


def _settle(
    envelope: Envelope, newcomers: list[Arrival], at: datetime, transaction: Transaction
) -> None:
    decided = envelope.data(ConflictDecided)
    connection = transaction.connection
    uid = decided.study_instance_uid
    row = _locked(connection, decided)
    if row is None or not _is_awaited(row, decided):
        return
    connection.execute(
        update(conflict)
        .where(conflict.c.id == row.id)
        .values(decision=str(decided.decision), decided_by=decided.decided_by, settled_at=at)
    )
    version = _carry_out(transaction, row, decided.decision, newcomers, at)
    connection.execute(
        update(conflict).where(conflict.c.id == row.id).values(study_version=version)
    )
    settled = ConflictSettled(**decided.model_dump(), study_version=version)
    outbox.send(
        transaction,
        envelope.leads_to(
            settled, source=SOURCE, time=at, id=derived_id(ConflictSettled.TYPE, row.id)
        ),
    )
    log.info(
        "conflict.settled",
        study_instance_uid=uid,
        decision=decided.decision,
        study_version=version,
        user_id=decided.decided_by,
    )


def _take_back(
    envelope: Envelope, reason: UnsettledReason, at: datetime, transaction: Transaction
) -> None:
    """Note that a decision was not carried out, and say so; nothing else changes."""
    decided = envelope.data(ConflictDecided)
    connection = transaction.connection
    row = _locked(connection, decided)
    if row is None or not _is_awaited(row, decided):
        return
    connection.execute(
        update(conflict).where(conflict.c.id == row.id).values(unsettled=row.unsettled + 1)
    )
    unsettled = ConflictUnsettled(
        conflict_id=row.id,
        study_instance_uid=decided.study_instance_uid,
        decided_before=decided.decided_before,
        reason=reason,
    )
    message_id = derived_id(ConflictUnsettled.TYPE, row.id, decided.decided_before)
    outbox.send(transaction, envelope.leads_to(unsettled, source=SOURCE, time=at, id=message_id))
    log.warning(
        "conflict.unsettled",
        study_instance_uid=decided.study_instance_uid,
        decision=decided.decision,
        reason=reason,
    )


def _locked(connection: Connection, decided: ConflictDecided) -> Row[Any] | None:
    # Receiving and announcing hold the same lock.
    connection.execute(_LOCK_STUDY.where(study.c.study_instance_uid == decided.study_instance_uid))
    return connection.execute(
        select(conflict).where(conflict.c.id == decided.conflict_id).with_for_update()
    ).first()


def _carry_out(
    transaction: Transaction,
    row: Row[Any],
    decision: ConflictDecision,
    newcomers: list[Arrival],
    at: datetime,
) -> int | None:
    """Change the study; return the version that it makes, where readers have seen it otherwise."""
    uid = row.study_instance_uid
    if decision is ConflictDecision.EXCLUDE and row.kind == ConflictKind.IDENTITY:
        if _exclude(transaction.connection, row, at):
            return announce_settled(transaction, uid, at)
    elif decision is ConflictDecision.REPLACE:
        if row.kind == ConflictKind.INSTANCE:
            was_read = [put_aside(transaction, newcomer) for newcomer in newcomers]
            enter(transaction, newcomers)
            if not any(was_read):
                return None
        else:
            _believe(transaction.connection, uid, newcomers[0])
        if row.kind == ConflictKind.UPDATE:
            for newcomer in newcomers:
                exchange(transaction, newcomer)
        return announce_settled(transaction, uid, at)
    return None


def _believe(connection: Connection, study_instance_uid: str, newcomer: Arrival) -> None:
    """Have a study known by what an instance says of patient and order."""
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(study_attributes(newcomer))
    )


def _exclude(connection: Connection, row: Row[Any], at: datetime) -> bool:
    """Leave a patient's instances out; return whether a version that was announced has one."""
    uids = select(_members(row).subquery().c.sop_instance_uid)
    ours = instance.c.sop_instance_uid.in_(uids)
    version = connection.execute(
        select(study.c.version).where(study.c.study_instance_uid == row.study_instance_uid)
    ).scalar_one()
    was_seen = connection.execute(
        select(
            exists().where(
                ours,
                instance.c.makes_version,
                instance.c.excluded_at.is_(None),
                instance.c.study_version <= version,
            )
        )
    ).scalar_one()
    connection.execute(
        update(instance).where(ours, instance.c.excluded_at.is_(None)).values(excluded_at=at)
    )
    if version:
        # Where nothing else is new, nor promised by another decision, there is none to wait for.
        is_new = exists().where(
            instance.c.study_instance_uid == row.study_instance_uid,
            instance.c.study_version > version,
            instance.c.excluded_at.is_(None),
        )
        is_waited_for = exists().where(
            conflict.c.study_instance_uid == row.study_instance_uid,
            conflict.c.study_version > version,
        )
        connection.execute(
            update(study)
            .where(study.c.study_instance_uid == row.study_instance_uid, ~is_new, ~is_waited_for)
            .values(pending_since=None, quiet_until=None)
        )
    return bool(was_seen)


_LOCK_STUDY = select(study.c.study_instance_uid).with_for_update()
