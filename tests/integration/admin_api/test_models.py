"""The registry of models over HTTP: who may decide, what is kept of it, and what is compared."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select, update

from imaging_store.schema.administration import model_decision
from imaging_store.schema.results import model, refused_model, shadow_result
from message_contracts.identifiers import case_id_of
from message_contracts.inference import NotRead
from message_contracts.model_description import ModelDescription
from tests.integration.admin_api.conftest import Hospital
from tests.workflow_journey import NOON, a_model

UID = "1.2.826.0.1.9"
WHY = {"why": "It was measured on our own studies."}


def add_version(hospital: Hospital, version: str) -> None:
    described = a_model().model_dump(mode="json") | {
        "version": version,
        "device_uid": f"2.25.{version.replace('.', '')}",
    }
    hospital.register(ModelDescription.model_validate(described))
    with hospital.database.transaction() as transaction:
        transaction.connection.execute(
            update(model).where(model.c.version == version).values(retired_at=NOON)
        )


@pytest.fixture
def second(hospital: Hospital) -> Hospital:
    add_version(hospital, "1.1.0")
    return hospital


def states(hospital: Hospital) -> dict[str, str]:
    found = hospital.logged_in("admin@hospital.example").get("/api/v1/models").json()
    return {each["version"]: each["state"] for each in found["models"]}


def test_a_version_is_activated_and_rolled_back_with_who_and_why(second: Hospital) -> None:
    admin = second.hire("admin")
    assert states(second) == {"1.0.0": "active", "1.1.0": "inactive"}

    activated = admin.post("/api/v1/models/chest/versions/1.1.0/activate", json=WHY)
    assert states(second) == {"1.0.0": "inactive", "1.1.0": "active"}
    back = admin.post("/api/v1/models/chest/roll-back", json={"why": "It calls all normal."})

    assert activated.json()["state"] == "active"
    assert (back.json()["version"], back.json()["state"]) == ("1.0.0", "active")
    shown = admin.get("/api/v1/models/chest/versions/1.0.0").json()
    assert [(each["version"], each["decision"], each["by"]) for each in shown["decisions"]] == [
        ("1.1.0", "activate", "Admin Person"),
        ("1.0.0", "roll_back", "Admin Person"),
    ]
    assert shown["decisions"][0]["why"] == WHY["why"]
    assert shown["description"]["intended_use"] == "Tests."
    nothing_before = admin.post("/api/v1/models/chest/roll-back", json=WHY)
    assert nothing_before.status_code == 409
    assert "no other version" in nothing_before.json()["detail"]


def test_what_is_so_already_is_decided_once(second: Hospital) -> None:
    admin = second.hire("admin")

    for act in ("shadow", "shadow", "retire", "retire"):
        admin.post(f"/api/v1/models/chest/versions/1.1.0/{act}", json=WHY).raise_for_status()
    admin.post("/api/v1/models/chest/versions/1.0.0/activate", json=WHY).raise_for_status()

    with second.database.reading() as connection:
        decisions = connection.execute(select(model_decision.c.decision)).scalars().all()
    assert decisions == ["shadow", "retire"]


def test_the_active_version_is_not_put_in_shadow_by_mistake(second: Hospital) -> None:
    admin = second.hire("admin")

    refused = admin.post("/api/v1/models/chest/versions/1.0.0/shadow", json=WHY)

    assert refused.status_code == 409
    assert states(second)["1.0.0"] == "active"


def test_what_the_workers_refused_is_not_activated(second: Hospital) -> None:
    admin = second.hire("admin")
    with second.database.transaction() as transaction:
        transaction.connection.execute(
            insert(refused_model),
            {
                "folder": "chest-new",
                "model_name": "chest",
                "model_version": "1.1.0",
                "reason": "chest-new: grad_cam_layer: the network has no layer top",
                "refused_at": NOON,
            },
        )

    refused = admin.post("/api/v1/models/chest/versions/1.1.0/activate", json=WHY)

    assert refused.status_code == 409
    assert "grad_cam_layer" in refused.json()["detail"]
    [listed] = admin.get("/api/v1/models").json()["refused"]
    assert (listed["folder"], listed["version"]) == ("chest-new", "1.1.0")


@pytest.mark.parametrize("act", ["activate", "shadow", "retire"])
def test_only_admins_decide_and_only_with_a_reason(second: Hospital, act: str) -> None:
    path = f"/api/v1/models/chest/versions/1.1.0/{act}"

    assert second.anybody().post(path, json=WHY).status_code == 401
    assert second.hire("doctor").post(path, json=WHY).status_code == 403
    admin = second.hire("admin")
    assert admin.post(path, json={"why": " "}).status_code == 422
    assert admin.post(path.replace("1.1.0", "9.9.9"), json=WHY).status_code == 404
    assert states(second) == {"1.0.0": "active", "1.1.0": "inactive"}


def shadow_reads(hospital: Hospital, uid: str, label: str, probability: float) -> None:
    row: dict[str, Any] = {
        "case_id": case_id_of(uid),
        "case_version": 1,
        "model_name": "chest",
        "model_version": "1.1.0",
        "study_instance_uid": uid,
        "weights_sha256": "0" * 64,
        "label": label,
        "uncertain": False,
        "probabilities": {label: probability, "other": 1 - probability},
        "answered_at": hospital.tick(),
    }
    with hospital.database.transaction() as transaction:
        transaction.connection.execute(insert(shadow_result), row)


def test_a_shadow_is_compared_with_the_active_version_and_the_doctor(second: Hospital) -> None:
    admin = second.hire("admin")
    admin.post("/api/v1/models/chest/versions/1.1.0/shadow", json=WHY).raise_for_status()
    for number, label in enumerate(("Bacterial pneumonia", "Normal", "Normal"), start=1):
        second.analyzed(f"{UID}.{number}")
        shadow_reads(second, f"{UID}.{number}", label, 0.8)
    second.verified(f"{UID}.1")
    second.verified(f"{UID}.2")

    compared = admin.get("/api/v1/models/chest/versions/1.1.0/comparison").json()

    counts = ("readings", "failures", "compared", "agreeing")
    assert [compared[each] for each in counts] == [3, 0, 3, 1]
    signed = ("signed", "active_as_signed", "shadow_as_signed")
    assert [compared[each] for each in signed] == [2, 2, 1]
    assert {(each["active"], each["shadow"]): each["count"] for each in compared["pairs"]} == {
        ("Bacterial pneumonia", "Normal"): 2,
        ("Bacterial pneumonia", "Bacterial pneumonia"): 1,
    }
    latest = compared["differences"][0]
    assert (latest["study_instance_uid"], latest["shadow_probability"]) == (f"{UID}.3", 0.8)


def test_nothing_of_a_shadow_is_seen_but_in_the_comparison(second: Hospital) -> None:
    admin, doctor = second.hire("admin"), second.hire("doctor")
    admin.post("/api/v1/models/chest/versions/1.1.0/shadow", json=WHY).raise_for_status()
    case = second.analyzed(UID)
    shadow_reads(second, UID, "A finding that only the shadow has", 0.8)

    path = "/api/v1/models/chest/versions/1.1.0/comparison"
    assert "only the shadow has" in admin.get(path).text
    assert doctor.get(path).status_code == 403
    for shown in (f"/api/v1/cases/{case.id}", f"/api/v1/cases/{case.id}/history", "/api/v1/cases"):
        text = doctor.get(shown).raise_for_status().text
        assert "only the shadow has" not in text
        assert "1.1.0" not in text


def test_a_dry_run_tells_what_each_model_would_read_and_why(second: Hospital) -> None:
    doctor = second.hire("doctor")
    second.receive(UID)
    second.receive(UID, modality="MR")

    told = doctor.get("/api/v1/models/match", params={"study_instance_uid": UID}).json()

    assert told["no_model"] is False
    [chest] = told["models"]
    by_read = {each["read"]: each for each in chest["matches"]}
    assert [by_read[read]["instance_count"] for read in (True, False)] == [1, 1]
    assert {"fits": False, "reason": "Modality (0008,0060) is not DX or CR."} in by_read[False][
        "reasons"
    ]
    unknown = doctor.get("/api/v1/models/match", params={"study_instance_uid": "1.2.3"})
    assert unknown.status_code == 404


def test_a_case_is_uncertain_where_no_model_is_certain(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")
    described = a_model("bones")
    hospital.register(described)
    hospital.receive(UID)
    hospital.complete(UID)
    hospital.deliver(hospital.completed(UID, probability=0.55))
    hospital.deliver(hospital.completed(UID, described="bones"))

    [case] = doctor.get("/api/v1/cases").json()["items"]

    assert case["status"] == "AI_ANALYZED"
    assert case["uncertain"] is False
    assert {each["model"] for each in case["findings"]} == {"bones", "chest"}


def test_how_a_version_does_is_an_admins_to_see(hospital: Hospital) -> None:
    hospital.analyzed(UID)
    admin, doctor = hospital.hire("admin"), hospital.hire("doctor")
    where = "/api/v1/models/chest/versions/1.0.0/monitoring"

    found = admin.get(where).json()

    assert (found["read"], found["refused"]) == (1, 0)
    assert found["findings"]["Bacterial pneumonia"] == 1
    assert admin.get(where, params={"until": "2020-01-01T00:00:00Z"}).json()["answered"] == 0
    backwards = {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    assert admin.get(where, params=backwards).status_code == 422
    assert admin.get(where, params={"since": "2026-01-02T00:00:00"}).status_code == 422
    assert admin.get(where.replace("1.0.0", "9.0.0")).status_code == 404
    assert doctor.get(where).status_code == 403


@pytest.mark.parametrize(
    ("between", "at_fault"),
    [
        ({"until": "0001-01-01T00:00:00Z"}, "until"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
        ({"since": "2026-01-01T00:00:00Z", "until": "9999-12-31T23:59:59-14:00"}, "until"),
    ],
)
def test_a_time_that_no_clock_here_shows_is_refused_by_the_field(
    hospital: Hospital, between: dict[str, str], at_fault: str
) -> None:
    where = "/api/v1/models/chest/versions/1.0.0/monitoring"

    refused = hospital.hire("admin").get(where, params=between)

    assert refused.status_code == 422
    assert refused.json()["detail"] == f"{at_fault} must be of the years 1970 to 9998"


def test_a_refusal_and_what_was_not_read_are_shown_with_the_case(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")
    for uid in (f"{UID}.1", f"{UID}.2"):
        hospital.receive(uid)
        hospital.opened(uid)
        hospital.complete(uid)
    refusal = {"is_refusal": True, "reason": "Not a chest."}
    hospital.deliver(hospital.failed(f"{UID}.1").model_copy(update=refusal))
    missing = NotRead(
        reason="truncated", is_refusal=False, instance_count=1, sop_instance_uids=("2.25.4",)
    )
    hospital.deliver(hospital.completed(f"{UID}.2").model_copy(update={"not_read": (missing,)}))

    refused = doctor.get(f"/api/v1/cases/{case_id_of(f'{UID}.1')}").json()
    partly = doctor.get(f"/api/v1/cases/{case_id_of(f'{UID}.2')}").json()

    assert (refused["status"], refused["failure"], refused["refused"]) == (
        "AI_FAILED",
        "Not a chest.",
        True,
    )
    assert refused["readings"][0]["refused"]
    assert (partly["refused"], partly["partly_read"]) == (False, True)
    assert partly["readings"][0]["not_read"] == [missing.model_dump(mode="json")]
    items = doctor.get(f"/api/v1/cases/{case_id_of(f'{UID}.1')}/history").json()["items"]
    assert items[-1]["details"]["answer"] == "refused"
