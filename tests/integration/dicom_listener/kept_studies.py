"""Studies as an installation has them after weeks: rows, files and what became of their cases."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, insert, select, update

from dicom_listener.purging import Purge
from imaging_store.instances import FileInstanceStore, instance_key
from imaging_store.retention import Retention
from imaging_store.schema.ingest import duplicate_instance, instance, study
from imaging_store.schema.workflow import cases, destination_delivery
from message_contracts.case import CaseStatus, DeliveryState
from message_contracts.identifiers import case_id_of
from service_runtime.database import Database

NOW = datetime(2026, 7, 4, 12, 0, tzinfo=UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


LONG_AGO = days_ago(40)
MONTH = Retention(period=timedelta(days=30), watermark_bytes=0, reserve_bytes=0)
NEVER_ENOUGH_ROOM = Retention(period=timedelta(days=30), watermark_bytes=2**80, reserve_bytes=0)


@dataclass(frozen=True)
class KeptStudies:
    """Writes what services would have written."""

    database: Database
    store: FileInstanceStore

    def add(
        self,
        uid: str,
        *,
        count: int = 2,
        status: CaseStatus = CaseStatus.REPORT_READY,
        ended_at: datetime = LONG_AGO,
        delivery: DeliveryState | None = DeliveryState.DELIVERED,
        **of_case: Any,
    ) -> None:
        """Add a study whose case has this status since ``ended_at``, received a day before."""
        received_at = ended_at - timedelta(days=1)
        self.write(study, study_instance_uid=uid, opened_at=received_at, version=1)
        for number in range(1, count + 1):
            self.receive(uid, f"{uid}.{number}", received_at)
        self.write(
            cases,
            **{
                "id": case_id_of(uid),
                "study_instance_uid": uid,
                "status": status,
                "version": 1,
                "revision": 1,
                "report_version": 1 if status is CaseStatus.REPORT_READY else None,
                "on_hold": False,
                "opened_at": received_at,
                "changed_at": ended_at,
            }
            | of_case,
        )
        if delivery is not None:
            self.write(
                destination_delivery,
                case_id=case_id_of(uid),
                case_version=1,
                destination="EHR",
                kind="EHR",
                state=delivery,
                changed_at=ended_at,
            )

    def receive(self, study_uid: str, uid: str, at: datetime, data: bytes = b"") -> str:
        """Keep an instance; return the key of its file."""
        content = data or uid.encode()
        key = self.keep(study_uid, uid, content)
        self.write(
            instance,
            sop_instance_uid=uid,
            study_instance_uid=study_uid,
            series_instance_uid=f"{study_uid}.0",
            sop_class_uid=CT,
            makes_version=True,
            study_version=1,
            image_type=[],
            number_of_frames=1,
            key=key,
            digest=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            received_at=at,
        )
        return key

    def receive_duplicate(self, study_uid: str, uid: str, at: datetime, data: bytes) -> str:
        """Keep other bytes beside an instance; return the key of their file."""
        key = self.keep(study_uid, uid, data)
        self.write(
            duplicate_instance,
            sop_instance_uid=uid,
            study_instance_uid=study_uid,
            key=key,
            digest=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            received_at=at,
        )
        return key

    def keep(self, study_uid: str, uid: str, data: bytes) -> str:
        """Put the file of an instance where receiving puts it."""
        sink = self.store.open_write(b"")
        sink.write(data)
        return sink.commit(instance_key(study_uid, uid, sink.digest)).key

    def write(self, table: Table, **values: Any) -> None:
        """Insert a row; what is not told is empty."""
        for column in table.c:
            if column.name not in values and not (column.nullable or column.server_default):
                values[column.name] = "" if column.type.python_type is str else 0
        with self.database.transaction() as transaction:
            transaction.connection.execute(insert(table), values)

    def change(self, table: Table, where: Any, **values: Any) -> None:
        """Change rows as their owner would."""
        with self.database.transaction() as transaction:
            transaction.connection.execute(update(table).where(where).values(values))

    def rows(self, table: Table) -> list[Any]:
        """All rows of a table."""
        with self.database.reading() as connection:
            return list(connection.execute(select(table)).all())

    def purged(self) -> set[str]:
        """SOP Instance UIDs of the instances that no row claims to be kept."""
        return {row.sop_instance_uid for row in self.rows(instance) if row.purged_at is not None}

    def files(self) -> list[str]:
        """Keys of the instances that have a file."""
        root = self.store.root
        return sorted(str(path.relative_to(root)) for path in root.glob("instances/**/*.dcm"))


def a_purge(kept: KeptStudies, retention: Retention = MONTH, now: datetime = NOW) -> Purge:
    """Return a purge of all that is kept."""
    return Purge(kept.database, kept.store, retention, lambda: now)
