"""What an EHR answers where it does not take a report, and what is told of that."""

from __future__ import annotations

from collections import Counter

import pytest

from fhir_bridge.client import EhrRefused, EhrUnavailable, FhirClient
from tests.integration.fhir_bridge.deliveries import (
    FIRST,
    KINDS,
    OvertakenClient,
    bundle_of,
    deliver,
    held_by,
)
from tests.peers.fhir import FhirServer
from tests.peers.processes import free_port
from tests.unit.fhir_bridge.reports import a_report


def test_a_refusal_says_what_and_quotes_nothing(ehr: FhirServer, client: FhirClient) -> None:
    bundle = bundle_of(a_report()).resource
    bundle["entry"][4]["resource"]["status"] = "secret-of-the-patient"

    with pytest.raises(EhrRefused) as refusal:
        client.transact(bundle)

    assert "422" in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert "DiagnosticReport" in refusal.value.answer or "Bundle" in refusal.value.answer
    blamed = {it.resource_type: it.status for it in refusal.value.outcomes}
    assert len(refusal.value.outcomes) == 8
    assert "secret" not in str(blamed)
    assert held_by(ehr) == dict.fromkeys(KINDS, 0)


def test_the_outcome_of_a_refusal_is_told_per_resource(ehr: FhirServer, client: FhirClient) -> None:
    issue = {
        "severity": "error",
        "code": "required",
        "expression": ["DiagnosticReport.code"],
        "diagnostics": "Mustermann has no code",
    }
    ehr.answer_next(422, body={"resourceType": "OperationOutcome", "issue": [issue]})

    with pytest.raises(EhrRefused) as refusal:
        client.transact(bundle_of(a_report()).resource)

    assert str(refusal.value) == "the EHR refused with 422: required at DiagnosticReport.code"
    statuses = {it.resource_type: it.status for it in refusal.value.outcomes}
    assert statuses["DiagnosticReport"] == "422 required at DiagnosticReport.code"
    assert statuses["Patient"] == "not stored"
    assert "Mustermann" in refusal.value.answer


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 412, 413, 415, 422])
def test_a_hopeless_answer_is_not_tried_again(
    ehr: FhirServer, client: FhirClient, status: int
) -> None:
    ehr.answer_next(status)

    with pytest.raises(EhrRefused, match=str(status)):
        client.transact(bundle_of(a_report()).resource)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_an_answer_that_may_pass_is_tried_again(
    ehr: FhirServer, client: FhirClient, status: int
) -> None:
    ehr.answer_next(status)

    with pytest.raises(EhrUnavailable, match=str(status)):
        deliver(client, a_report())
    deliver(client, a_report())

    assert held_by(ehr) == KINDS


def test_an_ehr_that_asks_to_wait_is_left_alone(ehr: FhirServer, client: FhirClient) -> None:
    ehr.answer_next(503, headers={"Retry-After": "3600"})

    with pytest.raises(EhrUnavailable, match="503"):
        deliver(client, a_report())
    with pytest.raises(EhrUnavailable, match="left alone"):
        deliver(client, a_report())

    assert len(ehr.requests()) == 1


def test_an_ehr_that_is_away_is_tried_again() -> None:
    client = FhirClient(f"http://127.0.0.1:{free_port()}", timeout_s=5)

    with pytest.raises(EhrUnavailable, match="ConnectError"):
        deliver(client, a_report())
    client.close()


def test_a_page_that_is_not_fhir_is_not_taken_for_an_answer(
    ehr: FhirServer, client: FhirClient
) -> None:
    ehr.answer_next(200, body={"login": "please"})

    with pytest.raises(EhrUnavailable, match="not a FHIR Bundle"):
        deliver(client, a_report())


def test_a_transaction_done_in_part_is_not_taken_for_done(
    ehr: FhirServer, client: FhirClient
) -> None:
    ehr.treat_transactions_as_batches()
    bundle = bundle_of(a_report()).resource
    bundle["entry"][5]["resource"]["content"][0]["attachment"]["size"] = 0.5

    with pytest.raises(EhrRefused, match="part of the transaction only: DocumentReference 400"):
        client.transact(bundle)


def test_what_was_stored_before_a_refusal_is_told_as_stored(
    ehr: FhirServer, client: FhirClient
) -> None:
    refusing = OvertakenClient(ehr.url, before=2, overtake=lambda: ehr.answer_next(422))

    with pytest.raises(EhrRefused) as refusal:
        deliver(refusing, FIRST)
    refusing.close()

    told = Counter((it.resource_type, it.status) for it in refusal.value.outcomes)
    assert {kind: count for (kind, status), count in told.items() if status == "201"} == KINDS
    missing = {kind: count for (kind, status), count in told.items() if status == "not stored"}
    assert missing == {"Device": 1, "Observation": 1, "Provenance": 1}
    assert held_by(ehr) == KINDS
