from __future__ import annotations

import json
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import insert, update

from admin_api import passwords, users
from imaging_store.schema.delivery import ehr_submission
from imaging_store.schema.ingest import study
from message_contracts.delivery import ReportRequested
from message_contracts.identifiers import case_id_of
from message_contracts.intake import CompletionRequested
from tests.integration.admin_api.conftest import PASSWORD, Hospital
from tests.workflow_journey import NOON

UID = "1.2.826.0.1.1"
CASE = f"/api/v1/cases/{case_id_of(UID)}"
AGREE = {"decision": "agree", "password": PASSWORD}
REVIEW = {"notes": "No interaction.", "password": PASSWORD}
APPROVE = {"password": PASSWORD}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def analyzed(hospital: Hospital) -> Hospital:
    hospital.analyzed(UID)
    return hospital


def problem(answer: httpx.Response, status: int, type_: str) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert answer.status_code == body["status"] == status, body
    assert body["type"] == f"urn:countersign:problem:{type_}"
    return body


def test_three_calls_by_three_users_make_a_report(analyzed: Hospital) -> None:
    doctor, pharmacist, admin = map(analyzed.hire, ["doctor", "pharmacist", "admin"])
    (listed,) = doctor.get("/api/v1/cases", params={"stage": "doctor"}).json()["items"]

    answers = [
        doctor.post(f"{CASE}/doctor-verification", json=AGREE | {"revision": listed["revision"]}),
        pharmacist.post(f"{CASE}/pharmacist-review", json=REVIEW),
        admin.post(f"{CASE}/approval", json=APPROVE),
    ]

    assert listed["findings"][0] == {
        "label": "Bacterial pneumonia",
        "code": {
            "value": "53084003",
            "scheme_designator": "SCT",
            "meaning": "Bacterial pneumonia",
        },
        "probability": 0.9,
        "model": "chest",
        "version": "1.0.0",
    }
    assert (listed["modality"], listed["uncertain"], listed["delivery"]) == ("DX", False, {})
    assert [(answer.json()["status"], answer.json()["stage"]) for answer in answers] == [
        ("DOCTOR_VERIFIED", "pharmacist"),
        ("PHARMACIST_COMPLETED", "admin"),
        ("REPORT_READY", None),
    ]
    ready = answers[-1].json()
    assert [(each["stage"], each["name"]) for each in ready["signatures"]] == [
        ("doctor", "Doctor Person"),
        ("pharmacist", "Pharmacist Person"),
        ("admin", "Admin Person"),
    ]
    assert ready["delivery"] == {"ARCHIVE": "PENDING", "EHR": "PENDING"}
    assert ready["patient"]["patient_id"] == "P1"
    assert any(isinstance(each.body, ReportRequested) for each in analyzed.sent())
    assert admin.get(CASE).json() == ready


def test_what_was_made_of_a_case_can_be_had(analyzed: Hospital) -> None:
    admin = analyzed.hire("admin")
    completed = analyzed.completed(UID)
    analyzed.store.put_artifact(completed.heatmap_key, PNG + b"heat")
    analyzed.store.put_artifact(completed.source_key, PNG + b"source")
    unsigned = admin.get(f"{CASE}/report.pdf")
    analyzed.signed(UID)
    unrendered = admin.get(f"{CASE}/report.pdf")
    report = {"resourceType": "DiagnosticReport", "status": "final", "conclusion": "Für"}
    bundle = {"entry": [{"resource": {"resourceType": "Patient"}}, {"resource": report}]}
    analyzed.store.put_artifact("reports/1.pdf", b"%PDF-1.7")
    analyzed.store.put_artifact("reports/1.json", json.dumps(bundle).encode())
    with analyzed.database.transaction() as transaction:
        transaction.connection.execute(
            insert(ehr_submission),
            {
                "case_id": case_id_of(UID),
                "case_version": 1,
                "pdf_key": "reports/1.pdf",
                "pdf_sha256": "0" * 64,
                "bundle_key": "reports/1.json",
                "outcomes": [],
                "rendered_at": analyzed.now,
            },
        )

    heatmap = admin.get(f"{CASE}/heatmap.png")
    source = admin.get(f"{CASE}/source.png")
    pdf = admin.get(f"{CASE}/report.pdf")
    resource = admin.get(f"{CASE}/diagnostic-report.json")

    problem(unsigned, 404, "report-not-signed")
    problem(unrendered, 404, "report-not-rendered")
    assert unrendered.headers["retry-after"]
    assert (heatmap.content, heatmap.headers["content-type"]) == (PNG + b"heat", "image/png")
    assert source.content == PNG + b"source"
    assert (pdf.content, pdf.headers["content-type"]) == (b"%PDF-1.7", "application/pdf")
    assert resource.json() == report
    assert set(admin.get(CASE).json()["links"]) == {
        "history",
        "heatmap.png",
        "source.png",
        "explanations",
        "report.pdf",
        "diagnostic-report.json",
    }


def test_a_case_without_a_reading_has_no_heat_map(hospital: Hospital) -> None:
    hospital.opened(UID)

    answer = hospital.hire("doctor").get(f"{CASE}/heatmap.png")

    problem(answer, 404, "no-picture")


def test_the_history_names_who_did_what(analyzed: Hospital) -> None:
    doctor = analyzed.hire("doctor")
    doctor.post(f"{CASE}/doctor-verification", json=AGREE)

    items = doctor.get(f"{CASE}/history").json()["items"]

    assert [(each["trigger"], each["actor_name"]) for each in items] == [
        ("opened", None),
        ("model_asked", None),
        ("inference_completed", None),
        ("doctor_signed", "Doctor Person"),
    ]
    assert items[1]["previous_sha256"] == items[0]["sha256"]


def test_a_wrong_password_signs_nothing(analyzed: Hospital) -> None:
    doctor = analyzed.hire("doctor")
    before = doctor.get(CASE).json()

    answer = doctor.post(f"{CASE}/doctor-verification", json=AGREE | {"password": "guess"})

    assert "guess" not in str(problem(answer, 401, "wrong-password"))
    assert doctor.get(CASE).json() == before


def test_too_many_wrong_passwords_shut_an_account_for_a_while(analyzed: Hospital) -> None:
    doctor = analyzed.hire("doctor")
    analyzed.step = timedelta()
    for _ in range(6):
        last = doctor.post(f"{CASE}/doctor-verification", json=AGREE | {"password": "guess"})

    right = doctor.post(f"{CASE}/doctor-verification", json=AGREE)

    problem(last, 429, "locked-out")
    problem(right, 429, "locked-out")
    assert int(right.headers["retry-after"]) >= 1


@pytest.mark.parametrize("change", ["disable", "set_role", "set_password"])
def test_an_account_that_changes_while_its_password_is_checked_signs_nothing(
    analyzed: Hospital, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    doctor, admin = analyzed.hire("doctor"), analyzed.hire("admin")
    new = {"disable": analyzed.now, "set_role": "admin", "set_password": "another password"}
    check = passwords.matches

    def change_meanwhile(password_hash: str | None, password: str) -> bool:
        getattr(users, change)(analyzed.database, "doctor@hospital.example", new[change])
        return check(password_hash, password)

    monkeypatch.setattr(passwords, "matches", change_meanwhile)

    answer = doctor.post(f"{CASE}/doctor-verification", json=AGREE)

    problem(answer, 401, "not-signed-in")
    assert admin.get(CASE).json()["status"] == "AI_ANALYZED"


@pytest.mark.parametrize(
    ("resource", "body", "status", "type_"),
    [
        ("doctor-verification", AGREE, 403, "wrong-role"),
        ("approval", APPROVE, 403, "wrong-role"),
        ("pharmacist-review", REVIEW, 409, "wrong-state"),
        ("rejection", REVIEW | {"reason_code": "other"}, 403, "wrong-role"),
        ("return", REVIEW | {"reason_code": "other"}, 403, "wrong-role"),
        ("hold-release", REVIEW | {"reason_code": "other"}, 403, "wrong-role"),
        ("completion", REVIEW | {"reason_code": "other"}, 403, "wrong-role"),
        ("pharmacist-review", REVIEW | {"revision": 1}, 409, "stale-case"),
        ("pharmacist-review", {"password": PASSWORD}, 422, "invalid-request"),
        ("pharmacist-review", REVIEW | {"notes": "  "}, 422, "invalid-request"),
        ("pharmacist-review", REVIEW | {"notes": "None.\0"}, 422, "invalid-request"),
        ("return", REVIEW | {"reason_code": "mood"}, 422, "invalid-request"),
        ("pharmacist-review", REVIEW | {"note": "Quill^Ada"}, 422, "invalid-request"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(
    analyzed: Hospital, resource: str, body: dict[str, object], status: int, type_: str
) -> None:
    pharmacist = analyzed.hire("pharmacist")
    before = pharmacist.get(CASE).json()

    answer = pharmacist.post(f"{CASE}/{resource}", json=body)

    told = str(problem(answer, status, type_))
    assert PASSWORD not in told
    assert "Quill" not in told
    assert pharmacist.get(CASE).json() == before


@pytest.mark.parametrize(
    "words",
    [
        {"decision": "override", "notes": "Seen."},
        {"decision": "override", "finding": "Effusion"},
        {"decision": "uninterpretable"},
        {"decision": "agree", "finding": "Effusion"},
        {"decision": "perhaps"},
    ],
)
def test_a_doctors_word_must_be_whole(analyzed: Hospital, words: dict[str, str]) -> None:
    doctor = analyzed.hire("doctor")

    answer = doctor.post(f"{CASE}/doctor-verification", json=words | {"password": PASSWORD})

    problem(answer, 422, "invalid-request")


def test_a_case_that_is_not_there_is_not_found(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")

    for answer in (
        doctor.get(CASE),
        doctor.get(f"{CASE}/history"),
        doctor.get(f"{CASE}/report.pdf"),
        doctor.post(f"{CASE}/doctor-verification", json=AGREE),
    ):
        problem(answer, 404, "unknown-case")


def test_a_study_that_is_waited_for_is_taken_as_complete(analyzed: Hospital) -> None:
    admin = analyzed.hire("admin")
    code = admin.get("/api/v1/reason-codes").json()["completion"][0]["code"]
    body = REVIEW | {"reason_code": code}

    is_complete = admin.post(f"{CASE}/completion", json=body)
    with analyzed.database.transaction() as transaction:
        transaction.connection.execute(update(study).values(pending_since=NOON, quiet_until=NOON))
    accepted = admin.post(f"{CASE}/completion", json=body)

    problem(is_complete, 409, "wrong-state")
    assert accepted.status_code == 202
    assert accepted.json()["interventions"][-1]["act"] == "completion"
    assert CompletionRequested(study_instance_uid=UID) in [each.body for each in analyzed.sent()]


def test_a_study_that_waits_for_its_model_is_made_urgent(hospital: Hospital) -> None:
    hospital.receive(UID)
    hospital.opened(UID)
    hospital.complete(UID)
    doctor = hospital.hire("doctor")
    code = doctor.get("/api/v1/reason-codes").json()["urgency"][0]["code"]
    body = REVIEW | {"reason_code": code}

    accepted = doctor.post(f"{CASE}/urgency", json=body)
    again = doctor.post(f"{CASE}/urgency", json=body)

    assert accepted.status_code == 202
    assert accepted.json()["interventions"][-1]["act"] == "urgency"
    assert [each.urgency for each in hospital.requested_models()] == ["routine", "urgent"]
    problem(again, 409, "wrong-state")


def test_a_case_is_returned_rejected_and_released(analyzed: Hospital) -> None:
    doctor, pharmacist, admin = map(analyzed.hire, ["doctor", "pharmacist", "admin"])
    codes = doctor.get("/api/v1/reason-codes").json()
    doctor.post(f"{CASE}/doctor-verification", json=AGREE)

    returned = pharmacist.post(
        f"{CASE}/return", json=REVIEW | {"reason_code": codes["return"][0]["code"]}
    )
    analyzed.conflict(UID)
    held = doctor.post(f"{CASE}/doctor-verification", json=AGREE)
    released = admin.post(
        f"{CASE}/hold-release", json=REVIEW | {"reason_code": codes["hold_release"][0]["code"]}
    )
    rejected = doctor.post(
        f"{CASE}/rejection", json=REVIEW | {"reason_code": codes["rejection"][0]["code"]}
    )

    assert (returned.json()["status"], returned.json()["stage"]) == ("RETURNED", "doctor")
    assert "identity_conflict" in str(problem(held, 409, "on-hold")["detail"])
    assert released.json()["on_hold"] is False
    assert rejected.json()["status"] == "REJECTED"
    assert [each["act"] for each in rejected.json()["interventions"]] == [
        "return",
        "hold_release",
        "rejection",
    ]


def test_nobody_signs_two_stages(analyzed: Hospital) -> None:
    doctor = analyzed.hire("doctor")
    doctor.post(f"{CASE}/doctor-verification", json=AGREE)
    users.set_role(analyzed.database, "doctor@hospital.example", "pharmacist")
    both = analyzed.logged_in("doctor@hospital.example")

    answer = both.post(f"{CASE}/pharmacist-review", json=REVIEW)

    problem(answer, 409, "same-signer")


def test_worklists_are_read_page_by_page(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")
    for number in range(5):
        hospital.opened(f"1.2.3.{number}")
    hospital.analyzed(UID)
    seen, cursor = [], {}

    while True:
        page = doctor.get("/api/v1/cases", params={"limit": "2", **cursor}).json()
        seen += [each["study_instance_uid"] for each in page["items"]]
        if not page["next"]:
            break
        cursor = {"cursor": page["next"]}

    assert seen == [UID, *(f"1.2.3.{number}" for number in (4, 3, 2, 1, 0))]
    waiting = doctor.get("/api/v1/cases", params={"status": ["AI_ANALYZED", "AI_FAILED"]}).json()
    assert [each["study_instance_uid"] for each in waiting["items"]] == [UID]
    problem(doctor.get("/api/v1/cases", params={"cursor": "%%%"}), 422, "invalid-request")
    problem(doctor.get("/api/v1/cases", params={"status": "LOST"}), 422, "invalid-request")
