from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from dicom_sender.permission import NotNow, Withdrawn, require_permission
from imaging_store.schema.ingest import conflict
from message_contracts.case import CaseStatus, Release
from message_contracts.delivery import AttachmentRequested
from service_runtime.database import Database
from tests.integration.dicom_sender.kept_case import (
    CASE,
    NOON,
    change_case,
    keep_case,
    keep_delivery,
    keep_doctors_signature,
)

REQUEST = AttachmentRequested(
    case_id=CASE,
    case_version=1,
    study_instance_uid="2.25.1",
    destination="archive",
    sop_instance_uids=("2.25.2",),
)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    opened = Database(sqlite_url)
    keep_case(opened, "2.25.1")
    yield opened
    opened.close()


def ask(database: Database, release: Release = Release.REPORT_READY) -> None:
    with database.reading() as connection:
        require_permission(connection, REQUEST, release)


@pytest.mark.parametrize("release", list(Release))
def test_the_results_of_a_signed_report_may_leave(database: Database, release: Release) -> None:
    keep_doctors_signature(database)

    ask(database, release)


def test_they_may_leave_while_an_amendment_is_under_way(database: Database) -> None:
    keep_doctors_signature(database)
    change_case(database, status=CaseStatus.AMENDING, version=2)

    ask(database)


def test_a_reading_room_gets_what_nobody_has_signed(database: Database) -> None:
    change_case(database, status=CaseStatus.AI_ANALYZED, report_version=None)

    ask(database, Release.AI_ANALYZED)


@pytest.mark.parametrize("decision", ["override", "uninterpretable"])
def test_what_the_doctor_overrode_since_does_not_leave(database: Database, decision: str) -> None:
    keep_doctors_signature(database, decision)
    change_case(database, status=CaseStatus.DOCTOR_VERIFIED, report_version=None)

    with pytest.raises(Withdrawn, match="did not agree"):
        ask(database, Release.AI_ANALYZED)


def test_what_a_doctor_overrode_stays_until_they_agree(database: Database) -> None:
    keep_doctors_signature(database, "override", voided_at=NOON)
    change_case(database, status=CaseStatus.RETURNED, report_version=None)
    keep_delivery(database, rejected_at=NOON)

    with pytest.raises(Withdrawn, match="did not agree"):
        ask(database, Release.AI_ANALYZED)
    keep_doctors_signature(database)
    keep_delivery(database)
    ask(database, Release.AI_ANALYZED)


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"status": CaseStatus.REJECTED, "report_version": None}, id="rejected"),
        pytest.param(
            {"status": CaseStatus.PENDING_AI, "report_version": None, "version": 2},
            id="later images before any report",
        ),
    ],
)
def test_a_version_that_ended_without_a_report_does_not_leave(
    database: Database, state: dict[str, object]
) -> None:
    change_case(database, **state)

    with pytest.raises(Withdrawn, match="rejected, or later images"):
        ask(database, Release.AI_ANALYZED)


def test_a_rejected_amendment_does_not_leave(database: Database) -> None:
    change_case(database, version=2, report_version=1)
    amendment = REQUEST.model_copy(update={"case_version": 2})

    with database.reading() as connection, pytest.raises(Withdrawn):
        require_permission(connection, amendment, Release.AI_ANALYZED)


def test_a_case_sent_back_to_the_doctor_waits(database: Database) -> None:
    keep_doctors_signature(database, voided_at=NOON)
    change_case(database, status=CaseStatus.RETURNED, report_version=None)

    with pytest.raises(NotNow, match="signature is not in force"):
        ask(database, Release.DOCTOR_VERIFIED)


def test_what_was_asked_for_earlier_waits_where_the_destination_now_wants_a_report(
    database: Database,
) -> None:
    keep_doctors_signature(database)
    change_case(database, status=CaseStatus.DOCTOR_VERIFIED, report_version=None)

    ask(database, Release.DOCTOR_VERIFIED)
    with pytest.raises(NotNow, match="report has not been signed"):
        ask(database, Release.REPORT_READY)


def test_a_case_that_is_not_known_gets_nothing_sent(database: Database) -> None:
    stranger = REQUEST.model_copy(update={"case_id": CASE.__class__(int=8)})

    with database.reading() as connection, pytest.raises(Withdrawn, match="not known"):
        require_permission(connection, stranger, Release.AI_ANALYZED)


@pytest.mark.parametrize("holds", [True, False])
def test_what_was_made_before_a_correction_does_not_leave(
    database: Database, *, holds: bool
) -> None:
    keep_doctors_signature(database)
    settle_conflict(database, holds=holds, study_version=2)

    with pytest.raises(Withdrawn, match="corrected"):
        ask(database)


def test_what_was_made_of_the_corrected_study_leaves(database: Database) -> None:
    keep_doctors_signature(database)
    settle_conflict(database, holds=False, study_version=1)
    settle_conflict(database, holds=True, study_version=None)

    ask(database)


def settle_conflict(database: Database, *, holds: bool, study_version: int | None) -> None:
    """Keep a conflict as the listener leaves it when it has carried out what was decided."""
    with database.transaction() as transaction:
        transaction.connection.execute(
            conflict.insert(),
            {
                "id": uuid4(),
                "study_instance_uid": "2.25.1",
                "kind": "update",
                "sop_instance_uid": "1.2.3",
                "digest": "0" * 64,
                "known": {},
                "claimed": {},
                "differing": ["AccessionNumber"],
                "holds": holds,
                "opened_at": NOON,
                "decision": "replace",
                "settled_at": NOON,
                "study_version": study_version,
            },
        )
