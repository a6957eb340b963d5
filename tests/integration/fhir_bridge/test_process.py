"""The bridge as a process: killed, restarted, and one report at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from imaging_store.instances import FileInstanceStore
from message_contracts import catalogue
from message_contracts.delivery import ReportDelivered, ReportFailed, ReportRequested
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from service_runtime.messaging import dead_letters, outbox
from service_runtime.messaging.tables import dead_letter, delivery, message
from tests.integration.fhir_bridge.signed_case import keep_case, keep_pictures
from tests.peers.fhir import FhirServer
from tests.peers.processes import ServerProcess, wait_until
from tests.unit.fhir_bridge.reports import CASE_ID, NOON, PATIENT

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    keep_case(database)
    yield database
    database.close()


@pytest.fixture
def process(
    database: Database, sqlite_url: str, tmp_path: Path, ehr: FhirServer
) -> Iterator[ServerProcess]:
    keep_pictures(FileInstanceStore(tmp_path / "instances"))
    own = {key: value for key, value in os.environ.items() if "COUNTERSIGN" not in key}
    process = ServerProcess(
        [sys.executable, "-m", "fhir_bridge"],
        log=tmp_path / "fhir_bridge.log",
        environment=own
        | {
            "PYTHONPATH": str(CHECKOUT),
            "COUNTERSIGN_DATA_DIR": str(tmp_path),
            "COUNTERSIGN_DATABASE_URL": sqlite_url,
            "COUNTERSIGN_FHIR_URL": ehr.url,
        },
    )
    yield process
    process.kill()


def request(database: Database) -> None:
    envelope = Envelope.of(
        ReportRequested(case_id=CASE_ID, case_version=1), source="workflow_engine", time=NOON
    )
    with database.transaction() as tx:
        outbox.send(tx, envelope)


def answers(database: Database) -> list[object]:
    with database.reading() as connection:
        bodies = connection.execute(
            select(message.c.body).where(message.c.routing_key != ReportRequested.TYPE)
        ).all()
    return [catalogue.decode(row.body).body for row in bodies]


def free_what_the_dead_held(database: Database) -> None:
    """Let leases run out and delays pass, as half a minute would."""
    with database.transaction() as tx:
        tx.connection.execute(update(delivery).values(leased_until=0, due_at=time.time()))


def test_a_process_killed_after_the_ehr_committed_leaves_one_report(
    process: ServerProcess, database: Database, ehr: FhirServer
) -> None:
    # Report, finding and document are looked up before. However late the kill, no answer has come.
    ehr.lose_next_reply(skip=3, count=1000)
    process.start()
    request(database)
    wait_until(
        lambda: any(it.get("dropped") and it["method"] == "POST" for it in ehr.requests()),
        what="the lost reply",
    )
    process.kill()
    assert answers(database) == []
    ehr.mend()

    process.start()
    free_what_the_dead_held(database)
    wait_until(lambda: answers(database), what="the answer")

    [answer] = answers(database)
    assert isinstance(answer, ReportDelivered)
    [report] = ehr.search("DiagnosticReport")
    assert report["status"] == "final"
    assert len(ehr.history(report)) == 1
    assert len(ehr.search("Provenance")) == 2
    assert process.stop() == 0
    assert PATIENT.patient_id not in process.log.read_text()
    assert "Mustermann" not in process.log.read_text()


def test_a_refused_report_becomes_a_dead_letter_and_is_told(
    process: ServerProcess, database: Database, ehr: FhirServer
) -> None:
    issue = {"severity": "error", "code": "invalid", "diagnostics": "Mustermann is not welcome"}
    ehr.answer_next(422, body={"resourceType": "OperationOutcome", "issue": [issue]})
    process.start()

    request(database)
    wait_until(lambda: answers(database), what="the answer")

    [answer] = answers(database)
    assert isinstance(answer, ReportFailed)
    assert answer.reason == "the EHR refused with 422: invalid"
    with database.reading() as connection:
        [letter] = connection.execute(select(dead_letter)).all()
    assert letter.reason == answer.reason
    assert "Mustermann" not in process.log.read_text()


def test_a_report_that_is_refused_as_before_the_last_replay_is_told_anew(
    process: ServerProcess, database: Database, ehr: FhirServer
) -> None:
    ehr.answer_next(422)
    process.start()
    request(database)

    told = []
    for next_status in (413, 422, 422):
        [letter] = wait_until(lambda: dead_letters.list_open(database), what="the dead letter")
        told.append(sorted(answer.reason for answer in answers(database)))
        ehr.answer_next(next_status)
        with database.transaction() as tx:
            dead_letters.replay(tx, letter.id, who="admin", why="the EHR was changed")

    invalid, too_large = (f"the EHR refused with {code}: invalid" for code in (422, 413))
    assert told == [[invalid], [too_large, invalid], [too_large, invalid, invalid]]
