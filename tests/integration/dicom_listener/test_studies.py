"""What is said of studies: opened, complete, late, in conflict; and what starts no loop."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from imaging_store.schema.ingest import conflict, duplicate_instance, instance, study
from imaging_store.schema.results import model, result_object
from message_contracts.ingest import (
    CompletionReason,
    ConflictReason,
    StudyConflicted,
    StudyOpened,
    StudyReceived,
    StudyUpdated,
)
from tests.integration.dicom_listener.listener import Listener, a_slice, send, sendable
from tests.peers.processes import wait_until

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"


def another(ds: Dataset, **changes: object) -> Dataset:
    """Draw a further instance of the same study."""
    changes = {"SOPInstanceUID": generate_uid(), **changes}
    return a_slice(
        StudyInstanceUID=ds.StudyInstanceUID, SeriesInstanceUID=ds.SeriesInstanceUID, **changes
    )


def a_presentation_state(ds: Dataset) -> Dataset:
    state = another(ds, SOPClassUID=PRESENTATION_STATE, Modality="PR")
    for keyword in ("Rows", "Columns", "PixelData"):
        del state[keyword]
    return state


def wait_for_version(listener: Listener, ds: Dataset, version: int) -> None:
    def announced() -> bool:
        return any(
            row.study_instance_uid == ds.StudyInstanceUID and row.version == version
            for row in listener.rows(study)
        )

    wait_until(announced, what=f"version {version}")


def wait_for_another_study(listener: Listener) -> None:
    """Wait until a study that came now is complete: what was before is complete too."""
    ds = a_slice()
    send(listener.port, [sendable(ds)])
    wait_for_version(listener, ds, 1)


def completed(listener: Listener, ds: Dataset) -> list[StudyReceived]:
    return [
        body
        for body in listener.messages(StudyReceived, StudyUpdated)
        if body.study_instance_uid == ds.StudyInstanceUID
    ]


def test_a_study_is_opened_and_then_complete(listener: Listener) -> None:
    first = a_slice()

    send(listener.port, [sendable(first), sendable(another(first))])

    uid = first.StudyInstanceUID
    assert listener.messages(StudyOpened) == [StudyOpened(study_instance_uid=uid)]
    wait_for_version(listener, first, 1)
    assert listener.messages(StudyReceived) == [
        StudyReceived(
            study_instance_uid=uid,
            study_version=1,
            instance_count=2,
            reason=CompletionReason.QUIET,
        )
    ]


def test_a_late_image_makes_the_next_version(listener: Listener) -> None:
    first = a_slice()
    send(listener.port, [sendable(first)])
    wait_for_version(listener, first, 1)

    send(listener.port, [sendable(another(first))])

    wait_for_version(listener, first, 2)
    assert listener.messages(StudyUpdated) == [
        StudyUpdated(
            study_instance_uid=first.StudyInstanceUID,
            study_version=2,
            instance_count=2,
            reason=CompletionReason.QUIET,
        )
    ]
    assert sorted(row.study_version for row in listener.rows(instance)) == [1, 2]


def test_what_no_model_reads_makes_no_version(listener: Listener) -> None:
    first = a_slice()
    send(listener.port, [sendable(first)])
    wait_for_version(listener, first, 1)

    send(listener.port, [sendable(a_presentation_state(first))])

    wait_for_another_study(listener)
    assert [body.study_version for body in completed(listener, first)] == [1]
    assert len(listener.rows(instance)) == 3


def test_a_study_without_images_is_a_case_too(listener: Listener) -> None:
    state = a_presentation_state(a_slice())

    send(listener.port, [sendable(state)])

    wait_for_version(listener, state, 1)
    assert [body.instance_count for body in completed(listener, state)] == [1]


def test_our_own_object_is_known_by_its_uid(listener: Listener) -> None:
    first = a_slice()
    send(listener.port, [sendable(first)])
    wait_for_version(listener, first, 1)
    ours = another(first, SOPClassUID=SECONDARY_CAPTURE, Modality="OT", PatientID="COERCED")
    listener.execute(
        result_object.insert(),
        {
            "sop_instance_uid": ours.SOPInstanceUID,
            "sop_class_uid": SECONDARY_CAPTURE,
            "study_instance_uid": first.StudyInstanceUID,
            "series_instance_uid": generate_uid(),
            "case_id": uuid4(),
            "case_version": 1,
            "model_name": "chest",
            "model_version": "1",
            "key": "artifacts/x",
            "sha256": "0" * 64,
            "made_at": datetime.now(UTC),
        },
    )

    send(listener.port, [sendable(ours)])

    wait_for_another_study(listener)
    assert [body.study_version for body in completed(listener, first)] == [1]
    assert listener.messages(StudyConflicted) == []


def test_our_own_object_is_known_by_its_device(listener: Listener) -> None:
    first = a_slice()
    send(listener.port, [sendable(first)])
    wait_for_version(listener, first, 1)
    listener.execute(
        model.insert(),
        {
            "name": "chest",
            "version": "1",
            "device_uid": "2.25.99",
            "weights_sha256": "0" * 64,
            "description": {},
            "registered_at": datetime.now(UTC),
        },
    )
    device = Dataset()
    device.DeviceUID = "2.25.99"
    ours = another(
        first, SOPClassUID=SECONDARY_CAPTURE, ContributingEquipmentSequence=Sequence([device])
    )

    send(listener.port, [sendable(ours)])

    wait_for_another_study(listener)
    assert [body.study_version for body in completed(listener, first)] == [1]
    assert len(listener.rows(instance)) == 3


def test_the_same_bytes_again_change_nothing(listener: Listener) -> None:
    sent = sendable(first := a_slice())
    send(listener.port, [sent])
    wait_for_version(listener, first, 1)

    assert send(listener.port, [sent, sent]) == [0x0000, 0x0000]

    wait_for_another_study(listener)
    assert [body.study_version for body in completed(listener, first)] == [1]
    assert listener.rows(duplicate_instance) == []
    assert listener.messages(StudyConflicted) == []
    assert len(list(listener.store.root.rglob(f"{first.SOPInstanceUID}-*.dcm"))) == 1


def test_other_bytes_are_kept_beside_the_first_and_told_once(listener: Listener) -> None:
    first = a_slice()
    other = another(first, SOPInstanceUID=first.SOPInstanceUID, InstanceNumber=77)

    statuses = send(listener.port, [sendable(first), sendable(other), sendable(other)])

    assert statuses == [0x0000] * 3
    [kept] = listener.rows(instance)
    [beside] = listener.rows(duplicate_instance)
    assert listener.store.read(kept.key).endswith(sendable(first).data)
    assert listener.store.read(beside.key).endswith(sendable(other).data)
    wait_until(lambda: listener.rows(conflict), what="the comparison")
    [found] = listener.rows(conflict)
    assert listener.messages(StudyConflicted) == [
        StudyConflicted(
            study_instance_uid=first.StudyInstanceUID,
            sop_instance_uid=first.SOPInstanceUID,
            reason=ConflictReason.INSTANCE_CONFLICT,
            conflict_id=found.id,
        )
    ]


@pytest.mark.parametrize(
    "changes", [{"PatientID": "P2"}, {"PatientID": ""}, {"IssuerOfPatientID": "ELSEWHERE"}]
)
def test_another_patient_is_kept_and_told(listener: Listener, changes: dict[str, str]) -> None:
    first = a_slice()
    other = another(first, **changes)

    statuses = send(listener.port, [sendable(first), sendable(other)])

    assert statuses == [0x0000] * 2
    assert len(listener.rows(instance)) == 2
    assert listener.rows(study)[0].patient_id == "P1"
    [found] = listener.rows(conflict)
    assert listener.messages(StudyConflicted) == [
        StudyConflicted(
            study_instance_uid=first.StudyInstanceUID,
            sop_instance_uid=other.SOPInstanceUID,
            reason=ConflictReason.IDENTITY_CONFLICT,
            conflict_id=found.id,
        )
    ]


def test_the_quiet_period_survives_kill_minus_9(
    start_listener: Callable[..., Listener],
) -> None:
    listener = start_listener(quiet_period_s=2)
    first = a_slice()
    send(listener.port, [sendable(first)])

    listener.process.kill()
    listener.start()

    wait_for_version(listener, first, 1)
    assert len(completed(listener, first)) == 1
