"""An archive that routes everything it gets back to us starts no loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.people import Team
from tests.acceptance.studies import a_chest_study, part10
from tests.acceptance.system import AE_TITLE, EmbeddedSystem, Surroundings
from tests.peers.fhir import FhirServer
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.processes import wait_until


@pytest.fixture
def echoing_archive() -> Iterator[Orthanc]:
    with Orthanc(ae_title="ECHO") as archive:
        yield archive


@pytest.mark.slow
def test_results_that_come_back_make_no_version(
    models_dir, ehr: FhirServer, echoing_archive: Orthanc
) -> None:
    orthanc = echoing_archive
    # Released before any signature, so that what comes back comes while the case is open.
    surroundings = Surroundings(
        models_dir, ehr.url, orthanc.ae_title, orthanc.dicom_port, release="AI_ANALYZED"
    )
    with EmbeddedSystem(surroundings) as system:
        orthanc.add_modality("us", Modality(AE_TITLE, system.dicom_port))
        orthanc.route_everything_to("us")
        team = Team(system)
        instance = a_chest_study()
        study = str(instance.StudyInstanceUID)

        orthanc.upload(part10(instance))
        case = team.doctor.wait_for_status(study, "AI_ANALYZED")
        wait_until(lambda: orthanc.count_instances(study) == 3, what="results attached")
        # Whatever came back has been taken up once a later study has been read.
        later = a_chest_study()
        orthanc.upload(part10(later))
        team.doctor.wait_for_status(str(later.StudyInstanceUID), "AI_ANALYZED")

        now = team.doctor.get(f"/cases/{case['id']}").raise_for_status().json()
        assert (now["status"], now["version"]) == ("AI_ANALYZED", 1)
        assert orthanc.count_instances(study) == 3
        items = team.doctor.get("/cases").raise_for_status().json()["items"]
        assert len(items) == 2

        # A rejection note follows what the doctor overrides, comes back, and holds up nothing.
        overridden = team.doctor.sign(
            case["id"],
            "doctor-verification",
            decision="override",
            finding="Normal",
            notes="Looked.",
        )
        assert overridden.status_code == 200
        rejected = team.doctor.wait_for_delivery(case["id"], "REJECTED")
        wait_until(lambda: orthanc.count_instances(study, "KO") == 1, what="a note")
        third = a_chest_study()
        orthanc.upload(part10(third))
        team.doctor.wait_for_status(str(third.StudyInstanceUID), "AI_ANALYZED")
        after = team.doctor.get(f"/cases/{case['id']}").raise_for_status().json()
        assert (after["status"], after["version"]) == ("DOCTOR_VERIFIED", 1)
        assert not after["on_hold"]
        assert rejected["deliveries"][0]["instances"]
