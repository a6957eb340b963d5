"""Carries out what a person has decided about a conflict, in one transaction with the answer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Row, Select, delete, exists, select, update

from dicom_listener.announcements import SOURCE
from dicom_listener.announcer import announce_settled
from dicom_listener.arrival import Arrival, study_attributes
from dicom_listener.arrivals import enter
from dicom_listener.conflicts import ConflictKind
from dicom_listener.instance_header import NotUnderstood
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
from message_contracts.intake import ConflictDecided, ConflictDecision, ConflictSettled
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Effect

_OF_A_KEPT_FILE = (
    *("transfer_syntax_uid", "calling_ae_title", "called_ae_title", "key"),
    *("size_bytes", "sha256", "received_at", "purged_at"),
)

log = structlog.get_logger()


class CannotBeSettled(PermanentError):
    """There is no such conflict, or what is to take the place cannot be read any more."""


@dataclass(frozen=True)
class Settlement:
    """The handler of ``conflict.decided``."""

    database: Database
    rereader: Rereader
    now: Callable[[], datetime]

    def on_conflict_decided(self, envelope: Envelope) -> Effect:
        """Do what was decided; what takes another's place is read before.

        Raises
        ------
        CannotBeSettled
            There is no such conflict, or what is to take the place has been purged.
        """
        decided = envelope.data(ConflictDecided)
        with self.database.reading() as connection:
            row = connection.execute(
                select(conflict).where(conflict.c.id == decided.conflict_id)
            ).first()
            if row is None:
                raise CannotBeSettled("conflict_id: there is no such conflict")
            newcomers = self._newcomers(connection, row, decided.decision)
        return partial(_settle, envelope, newcomers, self.now())

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
            raise CannotBeSettled("nothing that could take the place is left of this conflict")
        return newcomers

    def _newcomer(self, row: Row[Any]) -> Arrival:
        source = Source(row.transfer_syntax_uid, row.calling_ae_title, row.called_ae_title)
        kept = Kept(row.key, row.size_bytes, row.sha256)
        try:
            return self.rereader.arrival(kept, source, self.now())
        except (NotInStore, NotUnderstood) as error:
            raise CannotBeSettled(
                f"{row.sop_instance_uid}: what is to take the place cannot be read: {error}"
            ) from error


def _members(row: Row[Any]) -> Select[Any]:
    """Select what shows a conflict: instances where it is about identity, else duplicates."""
    table = instance if row.kind == ConflictKind.IDENTITY else duplicate_instance
    return (
        select(table)
        .join(
            conflicting_instance,
            (conflicting_instance.c.sop_instance_uid == table.c.sop_instance_uid)
            & (conflicting_instance.c.sha256 == table.c.sha256),
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
    # Receiving and announcing hold the same lock.
    connection.execute(_LOCK_STUDY.where(study.c.study_instance_uid == uid))
    row = connection.execute(
        select(conflict).where(conflict.c.id == decided.conflict_id).with_for_update()
    ).one()
    if row.decision is not None:
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
            was_read = [_put_aside(transaction, newcomer) for newcomer in newcomers]
            enter(transaction, newcomers)
            if not any(was_read):
                return None
        else:
            _believe(transaction.connection, uid, newcomers[0])
        if row.kind == ConflictKind.UPDATE:
            for newcomer in newcomers:
                _exchange(transaction, newcomer)
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


def _exchange(transaction: Transaction, newcomer: Arrival) -> None:
    """Have a duplicate and the first instance change places; all else of the row stays."""
    connection = transaction.connection
    uid = newcomer.header.sop_instance_uid
    first, second = _both(connection, newcomer)
    if first is None or second is None:
        return
    columns = _OF_A_KEPT_FILE
    connection.execute(
        delete(duplicate_instance).where(
            duplicate_instance.c.sop_instance_uid == uid,
            duplicate_instance.c.sha256 == newcomer.kept.sha256,
        )
    )
    connection.execute(
        update(instance)
        .where(instance.c.sop_instance_uid == uid)
        .values(
            {name: getattr(second, name) for name in columns}
            # What was left out for its patient has been put right.
            | {"excluded_at": None, "makes_version": newcomer.header.is_image}
        )
    )
    _keep_beside(transaction, first, str(second.difference))


def _put_aside(transaction: Transaction, newcomer: Arrival) -> bool:
    """Make the first instance a duplicate, so that the newcomer can be entered in its place.

    Return whether a model may have read either.
    """
    connection = transaction.connection
    uid = newcomer.header.sop_instance_uid
    first, second = _both(connection, newcomer)
    if first is None or second is None:
        return False
    connection.execute(
        delete(duplicate_instance).where(
            duplicate_instance.c.sop_instance_uid == uid,
            duplicate_instance.c.sha256 == newcomer.kept.sha256,
        )
    )
    connection.execute(delete(instance).where(instance.c.sop_instance_uid == uid))
    _keep_beside(transaction, first, str(second.difference))
    return first.makes_version or newcomer.header.is_image


def _both(connection: Connection, newcomer: Arrival) -> tuple[Row[Any] | None, Row[Any] | None]:
    uid = newcomer.header.sop_instance_uid
    return (
        connection.execute(select(instance).where(instance.c.sop_instance_uid == uid)).first(),
        connection.execute(
            select(duplicate_instance).where(
                duplicate_instance.c.sop_instance_uid == uid,
                duplicate_instance.c.sha256 == newcomer.kept.sha256,
            )
        ).first(),
    )


def _keep_beside(transaction: Transaction, first: Row[Any], difference: str) -> None:
    values = {name: getattr(first, name) for name in _OF_A_KEPT_FILE}
    transaction.connection.execute(
        transaction.database.insert_new(duplicate_instance),
        {
            **values,
            "sop_instance_uid": first.sop_instance_uid,
            "study_instance_uid": first.study_instance_uid,
            "difference": difference,
        },
    )


_LOCK_STUDY = select(study.c.study_instance_uid).with_for_update()
