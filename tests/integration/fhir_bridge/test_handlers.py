from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from fhir_bridge.client import EhrRefused, EhrUnavailable, FhirClient
from fhir_bridge.deliver import to_folder, to_server
from fhir_bridge.handlers import Bridge, Deliver
from imaging_store.instances import FileInstanceStore
from imaging_store.schema.delivery import ehr_submission
from message_contracts import catalogue
from message_contracts.delivery import ReportDelivered, ReportFailed, ReportRequested
from message_contracts.envelope import Envelope
from message_contracts.message import Message
from service_runtime.database import Database
from service_runtime.messaging.consumer import Effect
from service_runtime.messaging.tables import message
from tests.integration.fhir_bridge.signed_case import keep_case, keep_pictures
from tests.peers.fhir import FhirServer
from tests.unit.fhir_bridge.reports import CASE_ID, NOON, PATIENT, SITE, STUDY, SYSTEMS, a_report

REQUESTED = Envelope.of(
    ReportRequested(case_id=CASE_ID, case_version=1), source="workflow_engine", time=NOON
)
FOLDER = f"reports/{CASE_ID}/v1"


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.close()


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    store = FileInstanceStore(tmp_path / "instances")
    keep_pictures(store)
    return store


def a_bridge(database: Database, store: FileInstanceStore, deliver: Deliver) -> Bridge:
    return Bridge(
        database, store, SITE, ZoneInfo("Europe/Vienna"), SYSTEMS, deliver, now=lambda: NOON
    )


@pytest.fixture
def bridge(database: Database, store: FileInstanceStore, client: FhirClient) -> Bridge:
    keep_case(database)
    return a_bridge(database, store, lambda report, bundle, _pdf: to_server(client, report, bundle))


def take(database: Database, effect: Effect) -> None:
    with database.transaction() as tx:
        effect(tx)


def sent(database: Database) -> list[Message]:
    with database.reading() as connection:
        rows = connection.execute(select(message.c.body)).all()
    return [catalogue.decode(row.body).body for row in rows]


def submission(database: Database) -> Any:
    with database.reading() as connection:
        return connection.execute(select(ehr_submission)).one()


def test_a_signed_report_is_rendered_kept_delivered_and_told(
    bridge: Bridge, database: Database, store: FileInstanceStore, ehr: FhirServer
) -> None:
    effect = bridge.on_report_requested(REQUESTED)
    take(database, effect)

    pdf = store.read(f"{FOLDER}/report.pdf")
    [report] = ehr.search("DiagnosticReport")
    assert base64.b64decode(report["presentedForm"][0]["data"]) == pdf
    [told] = sent(database)
    assert isinstance(told, ReportDelivered)
    assert {it.server_id for it in told.outcomes} > {report["id"]}
    row = submission(database)
    assert row.pdf_key == f"{FOLDER}/report.pdf"
    assert row.pdf_sha256 == hashlib.sha256(pdf).hexdigest()
    assert row.bundle_key == f"{FOLDER}/bundle.json"
    assert row.delivered_at == NOON
    assert len(row.outcomes) == 8
    bundle = json.loads(store.read(row.bundle_key))
    assert bundle["type"] == "transaction"


def test_a_message_that_comes_again_makes_the_same_report(
    bridge: Bridge, database: Database, store: FileInstanceStore, ehr: FhirServer
) -> None:
    take(database, bridge.on_report_requested(REQUESTED))
    first = [store.read(f"{FOLDER}/{name}") for name in ("report.pdf", "bundle.json")]

    take(database, bridge.on_report_requested(REQUESTED))

    assert [store.read(f"{FOLDER}/{name}") for name in ("report.pdf", "bundle.json")] == first
    [report] = ehr.search("DiagnosticReport")
    assert len(ehr.history(report)) == 1
    assert len(sent(database)) == 1


def test_the_pdf_that_is_kept_is_the_one_that_is_sent(
    bridge: Bridge, store: FileInstanceStore, ehr: FhirServer
) -> None:
    store.put_artifact(f"{FOLDER}/report.pdf", b"%PDF-1.7 as it was signed")

    bridge.on_report_requested(REQUESTED)

    [report] = ehr.search("DiagnosticReport")
    sent_pdf = base64.b64decode(report["presentedForm"][0]["data"])
    assert sent_pdf == b"%PDF-1.7 as it was signed"


def test_the_report_can_be_read_while_the_ehr_is_away(
    bridge: Bridge, database: Database, store: FileInstanceStore, ehr: FhirServer
) -> None:
    ehr.answer_next(503)

    with pytest.raises(EhrUnavailable):
        bridge.on_report_requested(REQUESTED)

    row = submission(database)
    assert store.read(row.pdf_key).startswith(b"%PDF")
    assert row.delivered_at is None
    assert sent(database) == []


def test_a_death_between_commit_and_effect_leaves_one_report(
    bridge: Bridge, database: Database, ehr: FhirServer
) -> None:
    # What a kill leaves: the EHR has it, the effect never ran, the message comes again.
    bridge.on_report_requested(REQUESTED)

    take(database, bridge.on_report_requested(REQUESTED))

    [report] = ehr.search("DiagnosticReport")
    assert report["status"] == "final"
    assert len(ehr.history(report)) == 1
    assert len(ehr.search("Provenance")) == 2
    [told] = sent(database)
    assert isinstance(told, ReportDelivered)
    assert all(it.server_id for it in told.outcomes)


def test_a_refusal_is_told_per_resource_and_its_words_stay_in_the_store(
    bridge: Bridge, database: Database, store: FileInstanceStore, ehr: FhirServer
) -> None:
    issue = {
        "severity": "error",
        "code": "business-rule",
        "expression": ["Patient.identifier"],
        "diagnostics": f"{PATIENT.patient_id} is not known",
    }
    ehr.answer_next(200, count=3, body={"resourceType": "Bundle", "type": "searchset"})
    ehr.answer_next(422, body={"resourceType": "OperationOutcome", "issue": [issue]})

    with pytest.raises(EhrRefused) as refusal:
        bridge.on_report_requested(REQUESTED)
    take(database, bridge.on_exhausted(REQUESTED, str(refusal.value)))

    [told] = sent(database)
    assert isinstance(told, ReportFailed)
    assert told.reason == "the EHR refused with 422: business-rule at Patient.identifier"
    statuses = {it.resource_type: it.status for it in told.outcomes}
    assert statuses["Patient"] == "422 business-rule at Patient.identifier"
    assert PATIENT.patient_id not in told.model_dump_json()
    assert PATIENT.patient_id in store.read(f"{FOLDER}/refusal.json").decode()
    assert submission(database).delivered_at is None


def test_an_ehr_that_stayed_away_is_told_without_outcomes(
    bridge: Bridge, database: Database
) -> None:
    take(database, bridge.on_exhausted(REQUESTED, "no answer from the EHR: ConnectError"))

    [told] = sent(database)
    assert isinstance(told, ReportFailed)
    assert told.outcomes == ()


def test_a_second_version_updates_the_report_of_the_first(
    bridge: Bridge, database: Database, ehr: FhirServer, store: FileInstanceStore
) -> None:
    take(database, bridge.on_report_requested(REQUESTED))
    first_pdf = store.read(f"{FOLDER}/report.pdf")
    keep_case(database, a_report(version=2))
    second = Envelope.of(
        ReportRequested(case_id=CASE_ID, case_version=2), source="workflow_engine", time=NOON
    )

    take(database, bridge.on_report_requested(second))

    [report] = ehr.search("DiagnosticReport")
    assert [it["status"] for it in ehr.history(report)] == ["amended", "final"]
    assert store.read(f"{FOLDER}/report.pdf") == first_pdf
    assert base64.b64decode(report["presentedForm"][0]["data"]) != first_pdf


def test_without_an_ehr_the_report_goes_to_the_folder(
    database: Database, store: FileInstanceStore, tmp_path: Path
) -> None:
    keep_case(database)
    bridge = a_bridge(database, store, lambda *signed: to_folder(tmp_path / "ehr-outbox", *signed))

    take(database, bridge.on_report_requested(REQUESTED))

    assert sorted(path.suffix for path in (tmp_path / "ehr-outbox").iterdir()) == [".json", ".pdf"]
    [told] = sent(database)
    assert isinstance(told, ReportDelivered)


def test_no_message_names_the_patient(bridge: Bridge, database: Database) -> None:
    take(database, bridge.on_report_requested(REQUESTED))
    take(database, bridge.on_exhausted(REQUESTED, "the EHR answered 503"))

    told = " ".join(it.model_dump_json() for it in sent(database))
    for secret in (
        PATIENT.patient_id,
        "Mustermann",
        "Erika",
        "19640812",
        "1964-08-12",
        STUDY.accession_number,
    ):
        assert secret not in told


def test_a_report_on_a_study_that_no_model_read_needs_no_pictures(
    database: Database, tmp_path: Path, client: FhirClient, ehr: FhirServer
) -> None:
    report = a_report()
    own = replace(report.doctor, decision="override", finding="Fracture", notes="Seen.")
    keep_case(database, a_report(own, reading=None))
    bridge = a_bridge(
        database,
        FileInstanceStore(tmp_path / "empty"),
        lambda report, bundle, _pdf: to_server(client, report, bundle),
    )

    take(database, bridge.on_report_requested(REQUESTED))

    assert ehr.search("Device") == []
    [report_there] = ehr.search("DiagnosticReport")
    assert report_there["conclusion"] == "Fracture\nSeen."
