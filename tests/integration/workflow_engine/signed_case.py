"""A case that people sign, whose results leave at every signature, and what of it is in force."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, Table, select

from imaging_store.schema.workflow import signature
from message_contracts.case import Release
from message_contracts.destination import PacsDestination
from tests.workflow_journey import Ward
from workflow_engine.commands import Words
from workflow_engine.reasons import RejectionReason

UID = "1.2.826.0.1.1"
REJECT = Words(RejectionReason.WRONG_PATIENT, "Not hers.")
AT_EVERY_SIGNATURE = tuple(
    PacsDestination(name=rule, ae_title="PACS", host="127.0.0.1", port=104, release=rule)
    for rule in Release
)


def rows(ward: Ward, table: Table) -> list[Row[Any]]:
    """Return all rows of a table."""
    with ward.database.reading() as connection:
        return list(connection.execute(select(table)).all())


def in_force(ward: Ward, version: int = 1) -> set[str]:
    """Return the stages whose signatures of a version are in force."""
    return {
        row.stage
        for row in rows(ward, signature)
        if row.voided_at is None and row.case_version == version
    }
