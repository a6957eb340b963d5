"""A case in the tables, as the workflow engine would have left it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

from sqlalchemy import delete, update

from imaging_store.schema.workflow import cases, destination_delivery, signature
from message_contracts.case import CaseStatus, DeliveryState, Stage
from service_runtime.database import Database

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
CASE = UUID(int=7)


def keep_case(database: Database, study_instance_uid: str) -> None:
    """Keep a case whose first version has its report."""
    with database.transaction() as transaction:
        transaction.connection.execute(
            cases.insert(),
            {
                "id": CASE,
                "study_instance_uid": study_instance_uid,
                "status": CaseStatus.REPORT_READY,
                "version": 1,
                "revision": 5,
                "report_version": 1,
                "on_hold": False,
                "opened_at": NOON,
                "changed_at": NOON,
            },
        )


def change_case(database: Database, **values: object) -> None:
    """Change columns of the case."""
    with database.transaction() as transaction:
        transaction.connection.execute(update(cases).values(values))


def keep_delivery(database: Database, *, rejected_at: datetime | None = None) -> None:
    """Keep that the results of the first version are to go to the archive, or were withdrawn."""
    key = {"case_id": CASE, "case_version": 1, "destination": "archive"}
    with database.transaction() as transaction:
        transaction.connection.execute(delete(destination_delivery))
        transaction.connection.execute(
            destination_delivery.insert(),
            {
                **key,
                "kind": "PACS",
                "state": DeliveryState.PENDING,
                "changed_at": NOON,
                "rejected_at": rejected_at,
            },
        )


def keep_doctors_signature(
    database: Database, decision: str = "agree", *, voided_at: datetime | None = None
) -> None:
    """Keep the doctor's signature of the first version."""
    with database.transaction() as transaction:
        transaction.connection.execute(
            signature.insert(),
            {
                "id": uuid4(),
                "case_id": CASE,
                "case_version": 1,
                "stage": Stage.DOCTOR,
                "user_id": uuid4(),
                "printed_name": "A Doctor",
                "role": "doctor",
                "meaning": "verified",
                "decision": decision,
                "notes": "",
                "signed_at": NOON,
                "authentication": "password",
                "content_sha256": "0" * 64,
                "voided_at": voided_at,
            },
        )
