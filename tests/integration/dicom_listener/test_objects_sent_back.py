"""What a PACS that routes everything sends to us beside images changes no version."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import highdicom
import numpy as np
import pytest
from highdicom.pr import GrayscaleSoftcopyPresentationState
from highdicom.sr import (
    CodeContentItem,
    ComprehensiveSR,
    ContainerContentItem,
    RelationshipTypeValues,
)
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from imaging_store.schema.ingest import instance
from imaging_store.schema.results import model
from inference_worker import secondary_capture, structured_report
from message_contracts.ingest import CompletionReason, StudyConflicted, StudyReceived, StudyUpdated
from tests.integration.dicom_listener.listener import Listener, send, sendable
from tests.peers.processes import wait_until
from tests.readings import a_model, a_reading
from tests.synthetic_images import STUDY_INSTANCE_UID, a_gradient, an_image, read

DOSE_SR = "1.2.840.10008.5.1.4.1.1.88.67"
OURS = {"manufacturer": "Vendor", "series_number": 7, "instance_number": 1}


def an_x_ray() -> Dataset:
    return an_image(
        a_gradient().astype("u2"),
        PatientID="P1",
        PatientName="Doe^Jane",
        PatientBirthDate="19700101",
        PatientSex="F",
        StudyDate="20260704",
        StudyTime="120000",
        StudyID="1",
        AccessionNumber="A1",
        ReferringPhysicianName="",
    )


def our_picture(source: Dataset) -> Dataset:
    overlay = np.zeros((24, 17, 3), "u1")
    return read(secondary_capture.make(source, overlay, a_reading()).content)


def our_report(source: Dataset) -> Dataset:
    return read(structured_report.make([source], a_reading(), [[0]]).content)


def a_presentation_state(source: Dataset) -> Dataset:
    return GrayscaleSoftcopyPresentationState(
        [source],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        manufacturer_model_name="Workstation",
        software_versions="1",
        device_serial_number="1",
        content_label="WINDOW",
        **OURS,
    )


def a_dose_report(source: Dataset) -> Dataset:
    root = ContainerContentItem(Code("113701", "DCM", "X-Ray Radiation Dose Report"))
    root.ContentSequence = highdicom.sr.ContentSequence(
        [
            CodeContentItem(
                Code("121058", "DCM", "Procedure reported"),
                Code("113704", "DCM", "Projection X-Ray"),
                RelationshipTypeValues.HAS_CONCEPT_MOD,
            )
        ]
    )
    report = ComprehensiveSR(
        [source],
        root,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        **OURS,
    )
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = DOSE_SR
    return report


def announced(listener: Listener) -> list[tuple[str, int]]:
    return [
        (body.study_instance_uid, body.study_version)
        for body in listener.messages(StudyReceived, StudyUpdated)
        if body.reason is CompletionReason.QUIET
    ]


@pytest.mark.parametrize("is_announced", [True, False], ids=["late", "in time"])
def test_results_states_and_dose_reports_change_no_version(
    start_listener: Callable[..., Listener], *, is_announced: bool
) -> None:
    listener = start_listener(quiet_period_s=0.3 if is_announced else 2)
    ours = a_model()
    listener.execute(
        model.insert(),
        {
            "name": ours.name,
            "version": ours.version,
            "device_uid": ours.device_uid,
            "weights_sha256": ours.weights_sha256,
            "description": {},
            "registered_at": datetime.now(UTC),
        },
    )
    source = an_x_ray()
    send(listener.port, [sendable(source)])
    if is_announced:
        wait_until(lambda: announced(listener), what="version 1")

    back = [make(source) for make in (our_picture, our_report, a_presentation_state, a_dose_report)]
    assert send(listener.port, [sendable(each) for each in back], "PACS") == [0x0000] * 4

    later = an_x_ray()
    later.StudyInstanceUID, later.SOPInstanceUID = generate_uid(), generate_uid()
    send(listener.port, [sendable(later)])
    # What was before is complete when this one is.
    wait_until(lambda: (later.StudyInstanceUID, 1) in announced(listener), what="the later")
    assert sorted(announced(listener)) == sorted(
        [(STUDY_INSTANCE_UID, 1), (later.StudyInstanceUID, 1)]
    )
    kept = {row.sop_class_uid: row.makes_version for row in listener.rows(instance)}
    assert len(listener.rows(instance)) == 6
    assert [uid for uid, makes_version in kept.items() if makes_version] == [source.SOPClassUID]
    assert listener.messages(StudyConflicted) == []
