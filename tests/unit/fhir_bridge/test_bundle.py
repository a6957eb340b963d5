from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from fhir_bridge.bundle import transaction
from fhir_bridge.signed_report import Decision, SignedReport
from fhir_bridge.splitting import MOST_ENTRIES, located, split
from tests.unit.fhir_bridge.reports import (
    ADMIN,
    PATIENT,
    READING,
    SITE,
    STUDY,
    SYSTEMS,
    a_report,
    an_override,
    doctor,
    signed_reports,
)

PDF = b"%PDF-1.7 a report"
R4B_ONLY = {"valueCodeableReference", "valueRatioRange"}


def bundle_of(report: SignedReport) -> dict[str, Any]:
    return transaction(report, SITE, PDF, SYSTEMS).resource


def resources(report: SignedReport, kind: str) -> list[dict[str, Any]]:
    return [
        entry["resource"]
        for entry in bundle_of(report)["entry"]
        if entry["resource"]["resourceType"] == kind
    ]


def one(report: SignedReport, kind: str) -> dict[str, Any]:
    [resource] = resources(report, kind)
    return resource


def test_an_agreed_reading_is_eight_entries() -> None:
    kinds = [entry["resource"]["resourceType"] for entry in bundle_of(a_report())["entry"]]

    assert kinds == [
        "Patient",
        "ImagingStudy",
        "Device",
        "Observation",
        "DiagnosticReport",
        "DocumentReference",
        "Provenance",
        "Provenance",
    ]


@settings(max_examples=60)
@given(signed_reports())
def test_every_bundle_is_a_transaction_that_can_be_sent_again(report: SignedReport) -> None:
    bundle = bundle_of(report)
    entries = bundle["entry"]

    assert bundle["type"] == "transaction"
    assert len(entries) <= 8
    assert len({entry["fullUrl"] for entry in entries}) == len(entries)
    known = {entry["fullUrl"] for entry in entries}
    assert set(references_in(entries)) <= known
    for entry in entries:
        request = entry["request"]
        conditional = request.get("ifNoneExist") or request["url"].partition("?")[2]
        assert conditional.count("|") == 1
        assert not set(",$\\ ") & set(conditional)


def references_in(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for it in value for found in references_in(it)]
    if not isinstance(value, dict):
        return []
    own = [value["reference"]] if "reference" in value else []
    return own + [found for it in value.values() for found in references_in(it)]


@settings(max_examples=40)
@given(signed_reports())
def test_the_result_is_what_the_doctor_stands_behind(report: SignedReport) -> None:
    observation = one(report, "Observation")
    labels = [it["code"] for it in observation.get("meta", {}).get("security", [])]

    if report.decision is Decision.AGREE:
        assert labels == ["AIAST"]
        assert "device" in observation
        assert "performer" not in observation
    else:
        assert labels == []
        assert "device" not in observation
        assert "component" not in observation
        assert observation["performer"][0]["identifier"]["value"] == str(report.doctor.user_id)
        assert resources(report, "Device") == []
    assert ("dataAbsentReason" in observation) == (report.decision is Decision.UNINTERPRETABLE)


@settings(max_examples=40)
@given(signed_reports())
def test_every_signature_is_told_once_and_nothing_else_is_signed(report: SignedReport) -> None:
    provenance = resources(report, "Provenance")[-1]

    signers = [it["who"]["identifier"]["value"] for it in provenance["signature"]]
    assert signers == [str(it.user_id) for it in report.signatures]
    agents = [it["who"]["identifier"]["value"] for it in provenance["agent"]]
    assert agents == signers
    parts = Counter(it["type"]["coding"][0]["code"] for it in provenance["agent"])
    assert parts == {"author": 1, "verifier": len(report.signatures) - 1}


@settings(max_examples=25)
@given(signed_reports())
def test_the_same_report_is_the_same_bytes(report: SignedReport) -> None:
    first = transaction(report, SITE, PDF, SYSTEMS).json
    again = transaction(replace(report), SITE, PDF, SYSTEMS).json

    assert first == again


def test_nothing_is_there_that_r4b_has_and_r4_has_not() -> None:
    text = json.dumps([bundle_of(a_report()), bundle_of(an_override())])

    assert not [name for name in R4B_ONLY if name in text]


def test_an_overridden_finding_of_the_model_is_nowhere_in_the_bundle() -> None:
    bundle = bundle_of(an_override("Lung abscess"))

    text = json.dumps(bundle)
    assert "Viral pneumonia" not in text
    assert READING.model_name not in text
    assert "AIAST" not in text
    assert "Lung abscess" in text


def test_the_report_names_department_and_doctor_in_their_places() -> None:
    report = one(a_report(), "DiagnosticReport")

    assert report["status"] == "final"
    assert report["performer"][0]["type"] == "Organization"
    assert report["performer"][0]["display"] == "Department of Radiology, Saint Elsewhere Hospital"
    [interpreter] = report["resultsInterpreter"]
    assert interpreter["display"] == "Dr. Greta Doctor"
    assert "reference" not in interpreter
    assert report["basedOn"][0]["identifier"]["value"] == "ACC-4711"
    assert report["conclusion"] == "Viral pneumonia\nConsolidation, left."
    assert report["conclusionCode"][0]["coding"][0]["code"] == "75570004"
    assert base64.b64decode(report["presentedForm"][0]["data"]) == PDF


def test_the_model_is_the_author_of_its_observation() -> None:
    bundle = bundle_of(a_report())

    by_kind = {entry["resource"]["resourceType"]: entry["fullUrl"] for entry in bundle["entry"][:6]}
    provenance = bundle["entry"][6]["resource"]
    assert provenance["target"] == [{"reference": by_kind["Observation"], "type": "Observation"}]
    [agent] = provenance["agent"]
    assert agent["who"]["reference"] == by_kind["Device"]
    assert agent["type"]["coding"][0]["code"] == "author"
    assert "signature" not in provenance


def test_every_class_is_a_component_with_its_probability() -> None:
    components = one(a_report(), "Observation")["component"]

    assert [it["code"]["text"] for it in components] == [it.label for it in READING.probabilities]
    assert [it["valueQuantity"]["value"] for it in components] == [0.71, 0.2, 0.06, 0.03]


def test_a_report_that_amends_keeps_its_identity() -> None:
    first, second = a_report(), a_report(version=2, amends=True)

    for kind in ("DiagnosticReport", "Observation", "DocumentReference"):
        assert one(first, kind)["identifier"] == one(second, kind)["identifier"]
    assert one(second, "DiagnosticReport")["status"] == "amended"
    assert one(second, "Observation")["status"] == "amended"
    assert one(second, "DocumentReference")["docStatus"] == "amended"


def test_the_first_report_of_a_later_version_is_final() -> None:
    assert one(a_report(version=3), "DiagnosticReport")["status"] == "final"


def test_a_known_issuer_has_the_system_of_the_ehr() -> None:
    [known] = one(a_report(), "Patient")["identifier"]
    unknown = a_report(patient=replace(PATIENT, issuer="OTHER"))

    assert known["system"] == SYSTEMS["HOSP"]
    assert one(unknown, "Patient")["identifier"][0]["system"].startswith("urn:oid:2.25.")


def test_an_id_that_a_search_cannot_carry_gets_one_that_it_can() -> None:
    report = a_report(patient=replace(PATIENT, patient_id="A|B,C"))

    [ours, theirs] = one(report, "Patient")["identifier"]
    assert theirs["value"] == "A|B,C"
    request = bundle_of(report)["entry"][0]["request"]
    assert request["ifNoneExist"] == f"identifier={ours['system']}|{ours['value']}"


def test_patients_without_an_id_are_not_one_patient() -> None:
    nameless = replace(PATIENT, patient_id="")
    one_case = a_report(patient=nameless)
    other_case = a_report(patient=nameless, case_id=ADMIN.user_id)

    assert one(one_case, "Patient")["identifier"] != one(other_case, "Patient")["identifier"]


def test_a_study_without_a_time_has_none() -> None:
    report = a_report(study=replace(STUDY, started=""))

    assert "started" not in one(report, "ImagingStudy")
    # R4 profiles want a time of every final report: when the doctor read it, then.
    assert one(report, "DiagnosticReport")["effectiveDateTime"].startswith("2026-03-04T12:00:00")


def test_a_date_stays_a_date() -> None:
    report = a_report(study=replace(STUDY, started="2026-03-04"))

    assert one(report, "DiagnosticReport")["effectiveDateTime"] == "2026-03-04"


def test_a_name_keeps_its_ideographs() -> None:
    report = a_report(patient=replace(PATIENT, name="Yamada^Tarou=山田^太郎"))

    [alphabetic, ideographic] = one(report, "Patient")["name"]
    assert alphabetic["family"] == "Yamada"
    assert ideographic["family"] == "山田"
    assert ideographic["extension"][0]["valueCode"] == "IDE"


@pytest.mark.parametrize(
    ("sex", "gender"), [("M", "male"), ("F", "female"), ("O", "other"), ("X", "unknown")]
)
def test_sex_is_told_in_the_words_of_fhir(sex: str, gender: str) -> None:
    assert one(a_report(patient=replace(PATIENT, sex=sex)), "Patient")["gender"] == gender


def test_uninterpretable_has_no_conclusion_code() -> None:
    report = a_report(doctor(Decision.UNINTERPRETABLE, notes="Motion."))

    assert "conclusionCode" not in one(report, "DiagnosticReport")


BONES = replace(
    READING,
    model_name="bones",
    device_uid="2.25.9",
    probabilities=tuple(reversed(READING.probabilities)),
)
UNSURE = replace(READING, model_name="unsure", device_uid="2.25.8", uncertain=True)


def with_several(**changes: Any) -> SignedReport:
    return replace(a_report(), others=(BONES, UNSURE), **changes)


def test_each_finding_that_the_doctor_agrees_with_is_an_observation_of_its_own() -> None:
    report = with_several()

    first, second = resources(report, "Observation")

    assert [it["identifier"][0]["value"] for it in (first, second)] == [
        str(report.case_id),
        f"{report.case_id}.bones",
    ]
    assert second["valueCodeableConcept"]["text"] == BONES.finding.label
    by_url = {it["fullUrl"]: it["resource"] for it in bundle_of(report)["entry"]}
    devices = [by_url[it["device"]["reference"]] for it in (first, second)]
    assert [it["deviceName"][0]["name"] for it in devices] == [READING.model_name, "bones"]
    results = one(report, "DiagnosticReport")["result"]
    assert [by_url[it["reference"]] for it in results] == [first, second]
    authors = resources(report, "Provenance")[:2]
    assert [by_url[it["target"][0]["reference"]] for it in authors] == [first, second]
    assert [by_url[it["agent"][0]["who"]["reference"]] for it in authors] == devices
    assert "unsure" not in json.dumps(bundle_of(report))


def test_where_the_doctor_overrides_no_model_has_an_observation() -> None:
    report = replace(an_override("Lung abscess"), others=(BONES,))

    assert "performer" in one(report, "Observation")
    assert "bones" not in json.dumps(bundle_of(report))


def test_a_finding_that_is_stood_behind_no_more_is_withdrawn() -> None:
    report = replace(an_override("Lung abscess"), amends=True, version=2, withdrawn=("bones",))

    own, withdrawn = resources(report, "Observation")

    assert withdrawn["identifier"][0]["value"] == f"{report.case_id}.bones"
    assert withdrawn["status"] == "entered-in-error"
    assert "valueCodeableConcept" not in withdrawn
    assert len(one(report, "DiagnosticReport")["result"]) == 1
    assert own["status"] == "amended"


def test_a_bundle_of_several_findings_is_split_so_that_every_part_is_small() -> None:
    bundle = bundle_of(with_several(withdrawn=("brain", "chest")))

    parts = split(bundle)

    assert all(len(part["entry"]) <= MOST_ENTRIES for part in parts)
    assert {it["fullUrl"] for part in parts for it in part["entry"]} == {
        it["fullUrl"] for it in bundle["entry"]
    }
    [own, bones, brain, chest] = [
        it["fullUrl"] for it in bundle["entry"] if it["resource"]["resourceType"] == "Observation"
    ]
    holds = [[url for url in (own, bones, brain, chest) if url in urls_of(part)] for part in parts]
    assert holds == [[own], [brain], [chest], [bones]]


def test_the_report_of_every_part_names_what_is_there_by_then() -> None:
    bundle = bundle_of(with_several(withdrawn=("brain",)))
    places: dict[str, str] = {}

    for number, part in enumerate(split(bundle)):
        known = urls_of(part) | set(places.values())
        assert set(references_in(located(part, places)["entry"])) <= known
        for entry in part["entry"]:
            if entry["resource"]["resourceType"] == "Observation":
                places[entry["fullUrl"]] = f"Observation/{number}"
    [last] = [it["resource"] for it in part["entry"] if "result" in it["resource"]]
    assert last["result"] == one(with_several(), "DiagnosticReport")["result"]


def test_withdrawn_findings_go_with_the_report_where_there_is_room() -> None:
    names = ("bones", "brain", "chest")
    bundle = bundle_of(replace(an_override(), amends=True, version=2, withdrawn=names))

    first, second = split(bundle)

    assert len(first["entry"]) == MOST_ENTRIES
    assert len(urls_of(second) - urls_of(first)) == 1


def test_a_bundle_of_one_finding_is_sent_as_it_is() -> None:
    bundle = bundle_of(a_report())

    assert split(bundle) == (bundle,)


def urls_of(part: dict[str, Any]) -> set[str]:
    return {it["fullUrl"] for it in part["entry"]}
