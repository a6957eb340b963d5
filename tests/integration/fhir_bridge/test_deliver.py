"""Delivery to a real FHIR server: any number of tries leave one report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fhir_bridge.client import EhrRefused, EhrUnavailable, FhirClient
from fhir_bridge.deliver import to_folder
from tests.integration.fhir_bridge.deliveries import (
    KINDS,
    LOOK_UPS,
    PDF,
    OvertakenClient,
    bundle_of,
    deliver,
    held_by,
    posts,
    the_report,
)
from tests.peers.fhir import FhirServer
from tests.unit.fhir_bridge.reports import PATIENT, SYSTEMS, a_report, an_override


def test_a_report_is_delivered_whole_with_its_references(
    ehr: FhirServer, client: FhirClient
) -> None:
    outcomes = deliver(client, a_report())

    assert held_by(ehr) == KINDS
    assert Counter(it.resource_type for it in outcomes) == KINDS
    assert {it.status for it in outcomes} == {"201"}
    report = the_report(ehr)
    assert report["status"] == "final"
    ids = {it.resource_type: it.server_id for it in outcomes}
    assert report["id"] == ids["DiagnosticReport"]
    assert report["subject"]["reference"] == f"Patient/{ids['Patient']}"
    assert report["result"][0]["reference"] == f"Observation/{ids['Observation']}"
    assert report["imagingStudy"][0]["reference"] == f"ImagingStudy/{ids['ImagingStudy']}"


def test_delivered_again_nothing_is_made_twice_and_nothing_is_written(
    ehr: FhirServer, client: FhirClient
) -> None:
    first = deliver(client, a_report())

    again = deliver(client, a_report())

    assert held_by(ehr) == KINDS
    assert posts(ehr) == 1
    assert len(ehr.history(the_report(ehr))) == 1
    by_kind = {(it.resource_type, it.server_id) for it in first}
    assert {(it.resource_type, it.server_id) for it in again} == by_kind


def test_the_same_transaction_posted_twice_makes_nothing_twice(
    ehr: FhirServer, client: FhirClient
) -> None:
    bundle = bundle_of(a_report()).resource
    client.transact(bundle)

    outcomes = client.transact(bundle)

    assert held_by(ehr) == KINDS
    assert {it.status for it in outcomes} == {"200"}


def test_a_reply_lost_after_the_commit_leaves_one_report(
    ehr: FhirServer, client: FhirClient
) -> None:
    ehr.lose_next_reply(skip=LOOK_UPS)

    with pytest.raises(EhrUnavailable, match="no answer"):
        deliver(client, a_report())
    outcomes = deliver(client, a_report())

    assert held_by(ehr) == KINDS
    assert posts(ehr) == 1
    assert Counter(it.resource_type for it in outcomes) == KINDS
    assert all(it.server_id for it in outcomes)


def test_a_later_version_updates_the_same_report(ehr: FhirServer, client: FhirClient) -> None:
    deliver(client, a_report())
    first = the_report(ehr)

    deliver(client, a_report(version=2, amends=True))

    second = the_report(ehr)
    assert second["id"] == first["id"]
    assert second["status"] == "amended"
    assert [it["status"] for it in ehr.history(second)] == ["amended", "final"]
    # A Provenance tells of one event: each version has its own.
    assert held_by(ehr) == KINDS | {"Provenance": 4}


def test_when_the_doctor_changes_their_mind_the_models_finding_does_not_stay(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report())

    amended = an_override("Lung abscess")
    amended = a_report(amended.doctor, version=2, amends=True)
    deliver(client, amended)

    [observation] = ehr.search("Observation")
    assert observation["valueCodeableConcept"]["text"] == "Lung abscess"
    assert "component" not in observation
    assert "device" not in observation


def test_an_earlier_version_that_comes_late_overwrites_nothing(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report(version=2, amends=True))
    before = the_report(ehr)

    [outcome] = deliver(client, a_report())

    assert the_report(ehr) == before
    assert outcome.status == "200 superseded by version 2"
    assert outcome.server_id == before["id"]


def test_the_patient_that_the_ehr_has_is_used_and_left_as_it_is(
    ehr: FhirServer, client: FhirClient
) -> None:
    identifier = {"system": SYSTEMS["HOSP"], "value": PATIENT.patient_id}
    known = ehr.post(
        {"resourceType": "Patient", "identifier": [identifier], "birthDate": "1901-01-01"}
    )

    deliver(client, a_report())

    assert ehr.search("Patient") == [known]
    assert the_report(ehr)["subject"]["reference"] == f"Patient/{known['id']}"


def test_what_a_partial_delivery_left_out_is_made_good(ehr: FhirServer, client: FhirClient) -> None:
    bundle = bundle_of(a_report()).resource
    client.transact(bundle | {"entry": bundle["entry"][:5]})

    deliver(client, a_report())

    assert held_by(ehr) == KINDS


def test_two_reports_of_one_case_are_for_a_person_to_merge(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report())
    twin = the_report(ehr)
    del twin["id"]
    ehr.post(twin)

    with pytest.raises(EhrRefused, match="2 DiagnosticReport"):
        deliver(client, a_report())


def test_a_report_changed_while_we_look_is_looked_at_again(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report())
    ehr.answer_next(200, body={"resourceType": "Bundle", "type": "searchset", "entry": [
        {"resource": the_report(ehr) | {"meta": {"versionId": "stale"}}}
    ]})  # fmt: skip

    with pytest.raises(EhrUnavailable, match="has changed"):
        deliver(client, a_report(version=2, amends=True))
    deliver(client, a_report(version=2, amends=True))

    assert the_report(ehr)["status"] == "amended"


def test_without_an_ehr_bundle_and_pdf_lie_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "ehr-outbox"
    report = a_report()

    first = to_folder(folder, report, bundle_of(report), PDF)
    again = to_folder(folder, report, bundle_of(report), PDF)

    assert first == again
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".pdf"]
    [bundle] = folder.glob("*.json")
    assert json.loads(bundle.read_bytes()) == bundle_of(report).resource
    assert bundle.with_suffix(".pdf").read_bytes() == PDF


def test_a_folder_that_cannot_be_written_to_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "ehr-outbox").write_text("a file")

    with pytest.raises(EhrUnavailable, match="ehr-outbox"):
        to_folder(tmp_path / "ehr-outbox", a_report(), bundle_of(a_report()), PDF)


def test_without_transactions_what_has_changed_is_not_overwritten_and_is_looked_at_again(
    ehr: FhirServer, client: FhirClient
) -> None:
    deliver(client, a_report())
    ehr.treat_transactions_as_batches()
    third = replace(an_override(), version=3, amends=True)
    late = OvertakenClient(ehr.url, before=1, overtake=lambda: deliver(client, third))

    with pytest.raises(EhrUnavailable, match="412"):
        deliver(late, a_report(version=2, amends=True))
    late.close()

    [finding] = ehr.search("Observation")
    assert finding["valueCodeableConcept"]["text"] == "Lung abscess"
