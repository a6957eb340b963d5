"""One study, from C-STORE to a signed report in the EHR, in both forms."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.acceptance.people import Team
from tests.acceptance.studies import a_chest_study, part10
from tests.acceptance.system import CountersignSystem
from tests.peers.fhir import FhirServer
from tests.peers.orthanc import Orthanc
from tests.peers.processes import wait_until

OURS = ("OT", "SR")


def send(orthanc: Orthanc, system: CountersignSystem, *, seed: int = 0, study: str = "") -> str:
    """Let the archive send a study to us by C-STORE; return its Study Instance UID."""
    instance = a_chest_study(study or None, seed=seed)
    orthanc.upload(part10(instance))
    orthanc.send_study(instance.StudyInstanceUID, system.form)
    return str(instance.StudyInstanceUID)


def results_in(orthanc: Orthanc, study: str) -> list[int]:
    """Count what we attached to a study: Secondary Captures and Structured Reports."""
    return [orthanc.count_instances(study, modality) for modality in OURS]


def reports_in(ehr: FhirServer, case_id: str) -> list[dict[str, object]]:
    """Return every DiagnosticReport that the EHR has of a case."""
    return [
        report
        for report in ehr.search("DiagnosticReport", _count="1000")
        if any(case_id in str(identifier["value"]) for identifier in report["identifier"])
    ]


def test_a_study_becomes_a_signed_report_in_the_ehr(
    system: CountersignSystem, team: Team, orthanc: Orthanc, ehr: FhirServer, tmp_path: Path
) -> None:
    study = send(orthanc, system)

    case = team.doctor.wait_for_status(study, "AI_ANALYZED")
    assert case["stage"] == "doctor"
    assert case["modality"] == "DX"
    assert {"label", "code", "probability", "model", "version"} <= set(case["findings"][0])
    assert results_in(orthanc, study) == [0, 0]
    heatmap = team.doctor.get(f"/cases/{case['id']}/heatmap.png").raise_for_status()
    assert heatmap.content.startswith(b"\x89PNG")

    verified = team.verify(case)
    assert (verified["status"], verified["stage"]) == ("DOCTOR_VERIFIED", "pharmacist")
    reviewed = team.pharmacist.sign(case["id"], "pharmacist-review", notes="No interaction.")
    assert reviewed.raise_for_status().json()["status"] == "PHARMACIST_COMPLETED"
    assert results_in(orthanc, study) == [0, 0]
    assert reports_in(ehr, case["id"]) == []
    approved = team.admin.sign(case["id"], "approval")
    assert approved.raise_for_status().json()["status"] == "REPORT_READY"

    team.admin.wait_for_delivery(case["id"])
    [report] = reports_in(ehr, case["id"])
    assert report["status"] == "final"
    [form] = report["presentedForm"]
    pdf = base64.b64decode(form["data"])
    assert pdf == team.doctor.get(f"/cases/{case['id']}/report.pdf").raise_for_status().content
    (tmp_path / "report.pdf").write_bytes(pdf)
    text = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "report.pdf", "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Acceptance Hospital" in text
    assert "AI - not for primary diagnosis" in text
    for person in ("Doctor Team", "Pharmacist Team", "Admin Team"):
        assert person in text
    pictures = subprocess.run(
        ["pdfimages", "-list", tmp_path / "report.pdf"], capture_output=True, text=True, check=True
    ).stdout
    assert pictures.count(" image ") >= 2
    # An overridden finding never goes to the archive.
    agreed = not case["uncertain"]
    assert results_in(orthanc, study) == ([1, 1] if agreed else [0, 0])
    resource = team.doctor.get(f"/cases/{case['id']}/diagnostic-report.json").raise_for_status()
    assert resource.json()["conclusion"] == report["conclusion"]
    history = team.doctor.get(f"/cases/{case['id']}/history").raise_for_status().json()
    assert len(history["items"]) >= 6


def test_a_rejected_case_leaves_nothing_behind(
    system: CountersignSystem, team: Team, orthanc: Orthanc, ehr: FhirServer
) -> None:
    study = send(orthanc, system)
    case = team.doctor.wait_for_status(study, "AI_ANALYZED")

    codes = team.doctor.get("/reason-codes").raise_for_status().json()
    code = codes["rejection"][0]["code"]
    rejected = team.doctor.sign(
        case["id"], "rejection", reason_code=code, notes="Another patient's phantom."
    )

    assert rejected.raise_for_status().json()["status"] == "REJECTED"
    # What would have been sent travels the same road as this later case's results.
    later = team.doctor.wait_for_status(send(orthanc, system), "AI_ANALYZED")
    team.countersign(later)
    team.admin.wait_for_delivery(later["id"])
    assert results_in(orthanc, study) == [0, 0]
    assert reports_in(ehr, case["id"]) == []


def test_nobody_signs_two_stages_of_one_case(
    system: CountersignSystem, team: Team, orthanc: Orthanc
) -> None:
    case = team.doctor.wait_for_status(send(orthanc, system), "AI_ANALYZED")

    by_the_wrong_role = team.pharmacist.sign(case["id"], "doctor-verification", decision="agree")
    too_early = team.pharmacist.sign(case["id"], "pharmacist-review", notes="Early.")
    wrong_password = team.doctor.sign(
        case["id"],
        "doctor-verification",
        decision="override",
        finding="Normal",
        notes="Mine.",
        password="guess",
    )

    assert by_the_wrong_role.status_code == 403
    assert too_early.status_code == 409
    assert wrong_password.status_code == 401
    for refusal in (by_the_wrong_role, too_early, wrong_password):
        assert refusal.headers["content-type"].startswith("application/problem+json")
    now = team.doctor.get(f"/cases/{case['id']}").json()
    assert now["status"] == "AI_ANALYZED"


def test_a_late_image_makes_a_second_version_and_leaves_the_report_in_force(
    system: CountersignSystem, team: Team, orthanc: Orthanc, ehr: FhirServer
) -> None:
    study = send(orthanc, system)
    case = team.doctor.wait_for_status(study, "AI_ANALYZED")
    team.countersign(case)
    team.admin.wait_for_delivery(case["id"])
    [first] = reports_in(ehr, case["id"])

    send(orthanc, system, seed=1, study=study)

    team.doctor.wait_for_status(study, "AMENDING", version=2)
    amending = _wait_for_stage(team, case["id"], "doctor")
    assert reports_in(ehr, case["id"]) == [first]
    pdf = team.doctor.get(f"/cases/{case['id']}/report.pdf").raise_for_status().content
    assert pdf == base64.b64decode(first["presentedForm"][0]["data"])

    team.countersign(amending)
    team.admin.wait_for_delivery(case["id"])
    [second] = reports_in(ehr, case["id"])
    assert second["id"] == first["id"]
    assert second["presentedForm"] != first["presentedForm"]


def _wait_for_stage(team: Team, case_id: str, stage: str) -> dict[str, object]:
    def there() -> dict[str, object] | None:
        case = team.doctor.get(f"/cases/{case_id}").raise_for_status().json()
        return dict(case) if case["stage"] == stage else None

    return wait_until(there, what=f"stage {stage}")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_one_address_tells_how_everything_is(system: CountersignSystem, path: str) -> None:
    answer = httpx.get(f"{system.url}{path}", trust_env=False)

    assert answer.status_code == 200
