"""Every Bundle against the official R4 definitions, by a judge that refuses broken resources."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from fhir_bridge.bundle import transaction
from fhir_bridge.signed_report import SignedReport
from tests.peers.fhir import FhirServer
from tests.unit.fhir_bridge.reports import (
    SITE,
    SYSTEMS,
    a_report,
    an_override,
    signed_reports,
)

PDF = b"%PDF-1.7 a report"
OBSERVATION, REPORT, DOCUMENT, PROVENANCE = 3, 4, 5, 6


def bundle_of(report: SignedReport) -> dict[str, Any]:
    return transaction(report, SITE, PDF, SYSTEMS).resource


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(report=signed_reports())
def test_every_bundle_is_valid_r4_and_is_taken(ehr: FhirServer, report: SignedReport) -> None:
    bundle = bundle_of(report)

    assert ehr.issues(bundle) == []
    # Taken, too: the server judges each resource again when it writes it.
    answer = httpx.post(ehr.url, json=bundle, headers={"Content-Type": "application/fhir+json"})
    assert answer.status_code == 200, answer.text
    assert {it["response"]["status"] for it in answer.json()["entry"]} <= {"200", "201"}


def test_an_amended_override_is_valid_r4(ehr: FhirServer) -> None:
    assert ehr.issues(bundle_of(an_override())) == []
    assert ehr.issues(bundle_of(a_report(version=2, amends=True))) == []


def _without(name: str) -> Any:
    return lambda resource: resource.pop(name)


def _with(**elements: Any) -> Any:
    return lambda resource: resource.update(elements)


BREAKAGES = [
    pytest.param(REPORT, _without("status"), id="no status"),
    pytest.param(REPORT, _without("code"), id="no code"),
    pytest.param(REPORT, _with(status="signed"), id="a status that R4 does not have"),
    pytest.param(REPORT, _with(study=[{"reference": "ImagingStudy/1"}]), id="an element of R5"),
    pytest.param(REPORT, _with(conclusion=""), id="an empty string"),
    pytest.param(REPORT, _with(result=[]), id="an empty array"),
    pytest.param(REPORT, _with(issued="2026-03-04"), id="a date for an instant"),
    pytest.param(REPORT, _with(effectiveDateTime="2026-03-04T10:00"), id="a time without zone"),
    pytest.param(
        REPORT, _with(effectivePeriod={"start": "2026-03-04"}), id="two choices of effective[x]"
    ),
    pytest.param(
        REPORT, _with(subject={"reference": "Practitioner/1"}), id="a practitioner as subject"
    ),
    pytest.param(
        REPORT, _with(subject={"type": "Medication", "display": "x"}), id="a subject of R4B only"
    ),
    pytest.param(
        REPORT,
        _with(presentedForm=[{"contentType": "application/pdf", "data": "%%%"}]),
        id="a PDF that is not base64",
    ),
    pytest.param(REPORT, _with(presentedForm=[{"data": "AAAA"}]), id="data without content type"),
    pytest.param(OBSERVATION, _with(status="ready"), id="an Observation's status"),
    pytest.param(
        OBSERVATION, _with(dataAbsentReason={"text": "none"}), id="a value and its absence"
    ),
    pytest.param(OBSERVATION, _with(component=[{"valueString": "x"}]), id="a nameless component"),
    pytest.param(
        OBSERVATION,
        _with(component=[{"code": {"text": "x"}, "valueQuantity": {"comparator": "~"}}]),
        id="a code deep inside",
    ),
    pytest.param(OBSERVATION, _with(valueInteger=1), id="two values"),
    pytest.param(DOCUMENT, _without("content"), id="a document without content"),
    pytest.param(DOCUMENT, _with(docStatus="signed"), id="a document's status"),
    pytest.param(PROVENANCE, _without("agent"), id="a Provenance by nobody"),
    pytest.param(PROVENANCE, _with(recorded="yesterday"), id="an instant that is none"),
    pytest.param(
        PROVENANCE,
        _with(agent=[{"who": {"reference": "Observation/1"}}]),
        id="an Observation as agent",
    ),
    pytest.param(
        PROVENANCE, _with(signature=[{"when": "2026-03-04T10:00:00Z"}]), id="half a signature"
    ),
    pytest.param(PROVENANCE, _with(entity=[{"role": "origin"}]), id="an entity's role"),
]


@pytest.mark.parametrize(("entry", "break_it"), BREAKAGES)
def test_the_judge_refuses_a_broken_resource(ehr: FhirServer, entry: int, break_it: Any) -> None:
    sound = bundle_of(a_report())
    broken = deepcopy(sound)
    break_it(broken["entry"][entry]["resource"])

    assert ehr.issues(sound["entry"][entry]["resource"]) == []
    assert ehr.issues(broken["entry"][entry]["resource"]) != []
    answer = httpx.post(ehr.url, json=broken, headers={"Content-Type": "application/fhir+json"})
    assert answer.status_code == 422
    # Nothing of a refused transaction stays.
    assert ehr.search("Patient") == []


def test_the_judge_refuses_a_resource_type_of_r4b_only(ehr: FhirServer) -> None:
    assert ehr.issues({"resourceType": "Citation", "status": "active"}) != []


def test_more_than_eight_conditional_entries_are_refused(ehr: FhirServer) -> None:
    bundle = bundle_of(a_report())
    ninth = deepcopy(bundle["entry"][0])
    ninth["fullUrl"] = "urn:uuid:11111111-2222-4333-8444-555555555555"
    ninth["request"]["ifNoneExist"] = "identifier=urn:oid:2.25.1|other"
    bundle["entry"].append(ninth)

    answer = httpx.post(ehr.url, json=bundle, headers={"Content-Type": "application/fhir+json"})

    assert answer.status_code == 400
