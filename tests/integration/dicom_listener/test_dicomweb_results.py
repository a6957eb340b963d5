"""What DICOMweb offers of studies that were purged, and of results that hold no more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from sqlalchemy import insert

from imaging_store.schema.ingest import instance
from imaging_store.schema.results import result_object
from imaging_store.schema.workflow import cases, signature
from message_contracts.identifiers import case_id_of
from tests.integration.dicom_listener.dicomweb_process import DicomWebProcess, post
from tests.integration.dicom_listener.dicomweb_studies import file_of
from tests.integration.dicom_listener.listener import a_slice


def test_what_is_excluded_or_purged_is_not_offered(
    dicomweb: DicomWebProcess, doctor: httpx.Client
) -> None:
    study, kept, excluded, purged, both = (generate_uid() for _ in range(5))
    with dicomweb.client() as admin:
        files = [
            file_of(a_slice(StudyInstanceUID=study, SeriesInstanceUID="2.25.9", SOPInstanceUID=uid))
            for uid in (kept, excluded, purged, both)
        ]
        assert post(admin, *files).status_code == 200
    for uid, column in (
        (excluded, "excluded_at"),
        (purged, "purged_at"),
        (both, "excluded_at"),
        (both, "purged_at"),
    ):
        change = instance.update().where(instance.c.sop_instance_uid == uid)
        dicomweb.execute(change.values({column: datetime.now(UTC)}))

    found = doctor.get(f"/studies/{study}/instances").json()
    [counted] = doctor.get("/studies", params={"StudyInstanceUID": study}).json()
    url = f"/studies/{study}/series/2.25.9/instances"

    assert [item["00080018"]["Value"][0] for item in found] == [kept]
    assert counted["00201208"]["Value"] == [1]
    assert doctor.get(f"{url}/{excluded}").status_code == 404
    assert doctor.get(f"{url}/{both}").status_code == 404
    assert doctor.get(f"{url}/{purged}").status_code == 410
    assert doctor.get(f"{url}/{purged}/metadata").status_code == 410
    assert doctor.get("/studies/1.2.3.4/metadata").status_code == 404


@pytest.fixture
def with_result(dicomweb: DicomWebProcess) -> Callable[..., tuple[str, str]]:
    """Store a study, and a Secondary Capture that was made of it."""

    def make(*, sent_back: bool = False, decision: str = "", **case: object) -> tuple[str, str]:
        study = generate_uid()
        capture = a_slice(
            StudyInstanceUID=study,
            SOPClassUID=SecondaryCaptureImageStorage,
            Modality="OT",
            SeriesNumber=9001,
            SeriesDescription="AI - not for primary diagnosis: chest",
        )
        with dicomweb.client() as admin:
            source = file_of(a_slice(StudyInstanceUID=study))
            files = [source, file_of(capture)] if sent_back else [source]
            assert post(admin, *files).status_code == 200
        key = f"results/{capture.SOPInstanceUID}/SC.dcm"
        dicomweb.store.put_artifact(key, file_of(capture))
        case_id, now = case_id_of(study), datetime.now(UTC)
        dicomweb.execute(
            insert(cases),
            {
                "id": case_id,
                "study_instance_uid": study,
                "status": "AI_ANALYZED",
                "version": 1,
                "revision": 1,
                "on_hold": False,
                "opened_at": now,
                "changed_at": now,
                **case,
            },
        )
        dicomweb.execute(
            insert(result_object),
            {
                "sop_instance_uid": capture.SOPInstanceUID,
                "sop_class_uid": capture.SOPClassUID,
                "study_instance_uid": study,
                "series_instance_uid": capture.SeriesInstanceUID,
                "case_id": case_id,
                "case_version": 1,
                "model_name": "chest",
                "model_version": "1",
                "key": key,
                "sha256": "",
                "made_at": now,
            },
        )
        if decision:
            signed = {"id": uuid4(), "case_id": case_id, "case_version": 1, "stage": "doctor"}
            signed |= {"user_id": uuid4(), "printed_name": "D", "role": "doctor", "meaning": "m"}
            signed |= {"decision": decision, "notes": "", "signed_at": now}
            signed |= {"authentication": "password", "content_sha256": ""}
            dicomweb.execute(insert(signature), signed)
        return study, str(capture.SOPInstanceUID)

    return make


@pytest.mark.parametrize(
    ("case", "is_offered"),
    [
        ({}, True),
        ({"sent_back": True}, True),
        ({"decision": "agree", "status": "DOCTOR_VERIFIED"}, True),
        ({"decision": "agree", "status": "REPORT_READY", "report_version": 1}, True),
        ({"decision": "override", "status": "DOCTOR_VERIFIED"}, False),
        ({"decision": "override", "status": "DOCTOR_VERIFIED", "sent_back": True}, False),
        ({"status": "REJECTED"}, False),
        ({"status": "AI_ANALYZED", "version": 2}, False),
        ({"status": "AMENDING", "version": 2, "report_version": 1}, True),
        ({"status": "REPORT_READY", "version": 2, "report_version": 2}, False),
    ],
)
def test_results_are_offered_as_far_as_they_hold(
    doctor: httpx.Client,
    with_result: Callable[..., tuple[str, str]],
    case: dict[str, object],
    is_offered: bool,
) -> None:
    study, capture = with_result(**case)

    instances = doctor.get(f"/studies/{study}/instances").json()
    series = doctor.get(f"/studies/{study}/series").json()
    metadata = doctor.get(f"/studies/{study}/metadata").json()
    [counted] = doctor.get("/studies", params={"StudyInstanceUID": study}).json()

    uids = [item["00080018"]["Value"][0] for item in instances]
    assert (capture in uids) is is_offered
    assert len(uids) == len(set(uids)) == len(series) == len(metadata) == 1 + is_offered
    assert counted["00080061"]["Value"] == (["CT", "OT"] if is_offered else ["CT"])
    if is_offered:
        [made] = [item for item in series if item["00080060"]["Value"] == ["OT"]]
        [item] = [item for item in instances if item["00080018"]["Value"] == [capture]]
        assert made["00200011"]["Value"] == [9001]
        assert made["0008103E"]["Value"][0].startswith("AI - not for primary diagnosis")
        assert item["00280010"]["Value"] == [8]
        assert doctor.get(f"{item['00081190']['Value'][0]}/thumbnail").status_code == 200
