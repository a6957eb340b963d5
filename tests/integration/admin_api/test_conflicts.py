"""From an instance that names another patient to results that leave, through the API."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_listener.part10 import file_meta
from imaging_store.schema.ingest import instance, quarantined_instance, study
from message_contracts import topology
from message_contracts.identifiers import case_id_of
from service_runtime.database import Database
from tests.integration.admin_api.conftest import PASSWORD, Hospital
from tests.integration.dicom_listener.listener import Sendable, a_slice, sendable
from tests.integration.dicom_listener.reading_room import ReadingRoom, handle_all
from tests.workflow_journey import DX


@pytest.fixture
def room(database: Database, hospital: Hospital) -> ReadingRoom:
    return ReadingRoom(database, hospital.store.root)


PROBLEM = "urn:countersign:problem:"


class Round:
    """A study on its way through listener, workflow and API, each with its real handlers."""

    def __init__(self, hospital: Hospital, room: ReadingRoom) -> None:
        self.hospital, self.room = hospital, room
        self.admin = hospital.hire("admin")
        self.first = a_slice(StudyInstanceUID="1.2.826.0.1.7", SOPClassUID=DX, Modality="DX")
        self.uid = str(self.first.StudyInstanceUID)
        self.url = f"/api/v1/cases/{case_id_of(self.uid)}"

    def another(self, **changes: object) -> Dataset:
        same = {
            name: self.first[name].value
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "Modality")
        }
        return a_slice(**{**same, "SOPInstanceUID": generate_uid(), **changes})

    def pump(self) -> None:
        """Have every message handled that waits for listener or workflow."""
        while True:
            self.room.handle()
            if not handle_all(self.hospital.database, topology.WORKFLOW, self.hospital.handler):
                return

    def get(self, path: str = "") -> Any:
        return self.admin.get(self.url + path).raise_for_status().json()

    def decide(self, conflict_id: str, decision: str, **changes: object) -> httpx.Response:
        body = {
            "decision": decision,
            "reason_code": "wrong_worklist_entry",
            "notes": "Asked the ward.",
            "password": PASSWORD,
            **changes,
        }
        return self.admin.post(f"{self.url}/conflicts/{conflict_id}/decision", json=body)


@pytest.fixture
def journey(hospital: Hospital, room: ReadingRoom) -> Round:
    return Round(hospital, room)


@pytest.fixture
def held(journey: Round) -> Round:
    """Have a study with two patients that a model has read and that is on hold."""
    other = journey.another(PatientID="P2", PatientName="Roe^Jo")
    assert journey.room.arrive(journey.first, other) == [0x0000] * 2
    journey.room.become_quiet()
    journey.pump()
    journey.hospital.deliver(journey.hospital.completed(journey.uid))
    return journey


def sign(journey: Round) -> list[int]:
    doctor = journey.hospital.hire("doctor")
    answer = doctor.post(
        f"{journey.url}/doctor-verification", json={"password": PASSWORD, "decision": "agree"}
    )
    if answer.status_code != 200:
        return [answer.status_code]
    pharmacist = journey.hospital.hire("pharmacist")
    review = {"password": PASSWORD, "notes": "None."}
    return [
        answer.status_code,
        pharmacist.post(f"{journey.url}/pharmacist-review", json=review).status_code,
        journey.admin.post(f"{journey.url}/approval", json={"password": PASSWORD}).status_code,
    ]


def test_a_conflict_is_shown_side_by_side(held: Round) -> None:
    case = held.get()
    [shown] = held.get("/conflicts")["items"]

    assert (case["on_hold"], case["hold_reason"]) == (True, "identity_conflict")
    assert [each["conflict_id"] for each in case["holds"]] == [shown["id"]]
    assert (shown["kind"], shown["state"], shown["holds"]) == ("identity", "open", True)
    assert shown["differing"] == ["PatientID", "PatientName"]
    assert (shown["known"]["PatientID"], shown["claimed"]["PatientID"]) == ("P1", "P2")
    assert shown["instance_count"] == 1


def test_kept_the_hold_ends_and_results_leave(held: Round) -> None:
    [shown] = held.get("/conflicts")["items"]
    assert sign(held) == [409]

    decided = held.decide(shown["id"], "keep", revision=held.get()["revision"])

    assert decided.status_code == 202
    assert decided.json()["on_hold"]
    assert held.get("/conflicts")["items"][0]["state"] == "decided"
    held.pump()
    assert held.get("/conflicts")["items"][0]["state"] == "settled"
    assert (held.get()["on_hold"], held.get()["holds"]) == (False, [])
    # The doctor's account is there already.
    doctor = held.hospital.logged_in("doctor@hospital.example")
    agree = {"password": PASSWORD, "decision": "agree"}
    assert doctor.post(f"{held.url}/doctor-verification", json=agree).status_code == 200
    pharmacist = held.hospital.hire("pharmacist")
    review = {"password": PASSWORD, "notes": "None."}
    pharmacist.post(f"{held.url}/pharmacist-review", json=review).raise_for_status()
    held.admin.post(f"{held.url}/approval", json={"password": PASSWORD}).raise_for_status()
    assert held.hospital.attached() == [("ARCHIVE", 1)]
    triggers = [each["trigger"] for each in held.get("/history")["items"]]
    assert [each for each in triggers if "conflict" in each or "held" in each] == [
        "held",
        "conflict_decided",
        "conflict_settled",
    ]


def test_replaced_the_corrected_version_is_read_and_signed(held: Round) -> None:
    [shown] = held.get("/conflicts")["items"]

    held.decide(shown["id"], "replace").raise_for_status()
    held.pump()

    case = held.get()
    assert (case["version"], case["status"], case["on_hold"]) == (2, "PENDING_AI", False)
    assert (case["patient"]["patient_id"], case["patient"]["name"]) == ("P2", "Roe^Jo")
    held.hospital.deliver(held.hospital.completed(held.uid, 2))
    assert sign(held) == [200, 200, 200]
    assert held.hospital.attached() == [("ARCHIVE", 2)]


def test_excluded_the_rest_is_read_anew(held: Round) -> None:
    [shown] = held.get("/conflicts")["items"]

    held.decide(shown["id"], "exclude").raise_for_status()
    held.pump()

    case = held.get()
    assert (case["version"], case["study"]["instance_count"]) == (2, 1)
    assert [each.sop_instance_uids for each in held.hospital.requested_models()][-1] == (
        str(held.first.SOPInstanceUID),
    )


def test_a_decision_that_cannot_be_carried_out_is_told_and_made_anew(held: Round) -> None:
    held.room.arrive(held.another(PatientID="P3"))
    held.pump()
    [_, shown] = held.get("/conflicts")["items"]
    for row in held.room.rows(instance):
        held.room.store.path(row.key).unlink()

    held.decide(shown["id"], "replace").raise_for_status()
    held.pump()

    assert [each["state"] for each in held.get("/conflicts")["items"]] == ["open", "open"]
    assert [each["decided_at"] for each in held.get()["holds"]] == [None, None]
    told = held.get("/history")["items"][-1]
    assert (told["trigger"], told["reason_code"]) == ("conflict_unsettled", "newcomer_not_kept")
    held.decide(shown["id"], "keep").raise_for_status()
    held.pump()
    assert [each["state"] for each in held.get("/conflicts")["items"]] == ["open", "settled"]


@pytest.mark.parametrize(
    ("role", "changes", "status"),
    [
        ("doctor", {}, 403),
        ("admin", {"password": "wrong"}, 401),
        ("admin", {"decision": "perhaps"}, 422),
        ("admin", {"notes": " "}, 422),
        ("admin", {"revision": 1}, 409),
    ],
)
def test_only_an_admin_who_says_why_decides(
    held: Round, role: str, changes: dict[str, object], status: int
) -> None:
    [shown] = held.get("/conflicts")["items"]
    if role != "admin":
        held.admin = held.hospital.hire(role)

    assert held.decide(shown["id"], **{"decision": "keep", **changes}).status_code == status


def test_a_conflict_that_is_none_or_decided_is_refused(held: Round) -> None:
    [shown] = held.get("/conflicts")["items"]
    unknown = held.decide("00000000-0000-0000-0000-000000000000", "keep")
    malformed = held.decide("x", "keep")
    held.decide(shown["id"], "keep").raise_for_status()
    again = held.decide(shown["id"], "exclude")
    released = held.admin.post(
        f"{held.url}/hold-release",
        json={"password": PASSWORD, "reason_code": "other", "notes": "Now."},
    )

    assert (unknown.status_code, unknown.json()["type"]) == (404, f"{PROBLEM}unknown-conflict")
    assert malformed.status_code == 422
    assert (again.status_code, again.json()["type"]) == (409, f"{PROBLEM}already-decided")
    assert released.status_code == 409


def test_a_hold_with_an_undecided_conflict_is_not_released(held: Round) -> None:
    released = held.admin.post(
        f"{held.url}/hold-release",
        json={"password": PASSWORD, "reason_code": "other", "notes": "Now."},
    )

    assert (released.status_code, released.json()["type"]) == (409, f"{PROBLEM}undecided-conflict")


# Quarantine


def nonsense(**changes: str) -> Sendable:
    """Cut a data set off before it says which study it is of."""
    return Sendable(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "1.2.840.10008.1.2.1", DX, "1.2.3.4")


def decide_quarantined(journey: Round, decision: str, found: dict[str, Any]) -> httpx.Response:
    return journey.admin.post(
        f"/api/v1/quarantine/{found['id']}/decision",
        json={"password": PASSWORD, "decision": decision, "why": "Looked."},
    )


def quarantine_of(journey: Round, query: str = "") -> Any:
    return journey.admin.get(f"/api/v1/quarantine{query}").raise_for_status().json()["items"]


def test_what_is_discarded_leaves_and_may_come_again(journey: Round) -> None:
    assert journey.room.arrive(nonsense()) == [0xC000]
    [found] = quarantine_of(journey)
    assert (found["sop_class_uid"], found["sop_instance_uid"]) == (DX, "1.2.3.4")
    assert (found["calling_ae_title"], found["called_ae_title"]) == ("MODALITY", "COUNTERSIGN")

    assert decide_quarantined(journey, "discard", found).status_code == 202
    journey.room.handle()

    assert quarantine_of(journey) == []
    [gone] = quarantine_of(journey, "?settled=true")
    assert (gone["outcome"], gone["decisions"][0]["why"]) == ("discarded", "Looked.")
    assert decide_quarantined(journey, "release", found).status_code == 404
    # The same bytes are in quarantine again, also before the purge has run.
    assert journey.room.arrive(nonsense()) == [0xC000]
    [again] = quarantine_of(journey)
    assert again["id"] == found["id"]
    assert journey.room.store.exists(f"quarantine/{found['id']}.dcm")


def test_what_still_cannot_be_understood_stays(journey: Round) -> None:
    journey.room.arrive(nonsense())
    [found] = quarantine_of(journey)

    decide_quarantined(journey, "release", found).raise_for_status()
    journey.room.handle()

    [still] = quarantine_of(journey)
    assert still["outcome"] is None
    assert still["reason"] == found["reason"]
    assert [each["decision"] for each in still["decisions"]] == ["release"]


def test_what_can_be_understood_by_now_is_received(journey: Round) -> None:
    journey.room.arrive(nonsense())
    [found] = quarantine_of(journey)
    # As after an upgrade: the parser makes sense of what lies there.
    good = sendable(journey.first)
    header = file_meta(DX, good.sop_instance_uid, good.transfer_syntax_uid, "MODALITY")
    path = journey.room.store.path(f"quarantine/{found['id']}.dcm")
    path.write_bytes(header + good.data)
    with journey.hospital.database.transaction() as transaction:
        transaction.connection.execute(
            quarantined_instance.update().values(sop_instance_uid=good.sop_instance_uid)
        )

    decide_quarantined(journey, "release", found).raise_for_status()
    journey.room.handle()

    assert quarantine_of(journey) == []
    assert quarantine_of(journey, "?settled=true")[0]["outcome"] == "released"
    assert journey.room.row(study).study_instance_uid == journey.uid
    assert journey.room.arrive(good) == [0x0000]


def test_only_an_admin_decides_about_quarantine(journey: Round) -> None:
    journey.room.arrive(nonsense())
    [found] = quarantine_of(journey)
    journey.admin = journey.hospital.hire("doctor")

    assert decide_quarantined(journey, "discard", found).status_code == 403
