"""The PACS that results go to, as administrators see and pause them."""

from __future__ import annotations

from sqlalchemy import insert

from imaging_store.schema.delivery import (
    attachment,
    commitment_answer,
    commitment_request,
    destination_contact,
)
from message_contracts import catalogue, topology
from message_contracts.delivery import AttachmentRequested
from message_contracts.identifiers import case_id_of
from service_runtime.messaging import outbox
from service_runtime.messaging.outbox import Delivery
from tests.integration.admin_api.conftest import Hospital
from tests.workflow_journey import NOON

PATH = "/api/v1/destinations"
UID = "1.2.826.0.1.1"
BRANCH = topology.branch_of(topology.ATTACHMENT, "ARCHIVE")


def test_a_destination_is_shown_with_what_waits_and_how_it_went(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")
    hospital.analyzed(UID)
    hospital.signed(UID)
    [asked] = [each for each in hospital.sent() if isinstance(each.body, AttachmentRequested)]
    with hospital.database.transaction() as transaction:
        transaction.connection.execute(
            insert(destination_contact),
            {
                "destination": "ARCHIVE",
                "failed_at": NOON,
                "failure": "nobody answers for ARCHIVE: Connection refused",
            },
        )
        outbox.deliver(transaction, str(asked.id), [BRANCH], delay_s=60, error="Connection refused")
        dead = Delivery(BRANCH, "", asked.body.TYPE, catalogue.encode(asked), 0, 0, "")
        outbox.bury(transaction, dead, "0x0122", 1)

    [shown] = doctor.get(PATH).json()

    assert (shown["name"], shown["ae_title"], shown["release"]) == (
        "ARCHIVE",
        "ARCHIVE",
        "REPORT_READY",
    )
    assert (shown["waiting"], shown["waiting_for"]) == (1, "Connection refused")
    assert shown["waiting_since"] <= shown["next_try_at"]
    assert shown["dead_letters"] == 1
    assert shown["failure"] == "nobody answers for ARCHIVE: Connection refused"
    assert (shown["succeeded_at"], shown["paused"]) == (None, None)


def a_request_waits(hospital: Hospital, *, delay_s: float = 600) -> AttachmentRequested:
    """Sort a request for results into the branch of its destination, as the sender does."""
    hospital.analyzed(UID)
    hospital.signed(UID)
    [asked] = [each for each in hospital.sent() if isinstance(each.body, AttachmentRequested)]
    with hospital.database.transaction() as transaction:
        outbox.deliver(
            transaction, str(asked.id), [BRANCH], delay_s=delay_s, attempt=3, error="refused"
        )
    return asked.body


def test_what_waits_is_told_case_by_case(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")
    asked = a_request_waits(hospital)

    [waiting] = doctor.get(f"{PATH}/ARCHIVE/waiting").json()

    assert (waiting["case_id"], waiting["case_version"]) == (str(asked.case_id), 1)
    assert (waiting["asks_for"], waiting["attempts"]) == ("results", 3)
    assert waiting["last_error"] == "refused"
    assert waiting["next_try_at"] > waiting["since"]
    assert doctor.get(f"{PATH}/NOWHERE/waiting").status_code == 404


def test_a_case_tells_why_its_results_have_not_left(hospital: Hospital) -> None:
    admin = hospital.hire("admin")
    case = f"/api/v1/cases/{a_request_waits(hospital).case_id}"

    def archive() -> tuple[str, str, bool]:
        deliveries = admin.get(case).json()["deliveries"]
        [shown] = [each for each in deliveries if each["destination"] == "ARCHIVE"]
        return shown["state"], shown["waiting_for"], shown["next_try_at"] is not None

    tried = archive()
    admin.post(f"{PATH}/ARCHIVE/pause", json={"why": "The PACS is updated."})

    assert tried == ("PENDING", "refused", True)
    assert archive() == ("PENDING", "paused by Admin Person: The PACS is updated.", True)


def test_what_waited_is_tried_as_soon_as_the_destination_goes_on(hospital: Hospital) -> None:
    admin = hospital.hire("admin")
    a_request_waits(hospital, delay_s=600)
    admin.post(f"{PATH}/ARCHIVE/pause", json={"why": "The PACS is updated."})
    [before] = admin.get(f"{PATH}/ARCHIVE/waiting").json()

    resumed = admin.post(f"{PATH}/ARCHIVE/resume").json()

    assert resumed["next_try_at"] < before["next_try_at"]


def test_an_admin_pauses_a_destination_and_lets_it_go_on(hospital: Hospital) -> None:
    admin = hospital.hire("admin")

    paused = admin.post(f"{PATH}/ARCHIVE/pause", json={"why": "The PACS is updated."}).json()
    admin.post(f"{PATH}/ARCHIVE/pause", json={"why": "Once more."})
    [shown] = admin.get(PATH).json()
    resumed = admin.post(f"{PATH}/ARCHIVE/resume").json()

    assert (paused["paused"]["why"], paused["paused"]["paused_by"]) == (
        "The PACS is updated.",
        "Admin Person",
    )
    assert shown["paused"] == paused["paused"]
    assert resumed["paused"] is None


def test_nobody_else_does(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")

    assert doctor.post(f"{PATH}/ARCHIVE/pause", json={"why": "No."}).status_code == 403
    assert doctor.post(f"{PATH}/ARCHIVE/resume").status_code == 403
    assert hospital.anybody().get(PATH).status_code == 401


def test_a_pause_says_why(hospital: Hospital) -> None:
    admin = hospital.hire("admin")

    assert admin.post(f"{PATH}/ARCHIVE/pause", json={"why": "  "}).status_code == 422
    assert admin.get(PATH).json()[0]["paused"] is None


def test_a_destination_that_is_not_there_is_named_as_such(hospital: Hospital) -> None:
    answer = hospital.hire("admin").post(f"{PATH}/NOWHERE/pause", json={"why": "No."})

    assert answer.status_code == 404
    assert answer.json()["detail"] == "name: not in COUNTERSIGN_PACS_DESTINATIONS"


def test_a_case_shows_what_a_pacs_answered_to_each_instance(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")
    hospital.analyzed(UID)
    hospital.signed(UID)
    case_id = case_id_of(UID)
    answered = {
        "destination": "ARCHIVE",
        "case_id": case_id,
        "case_version": 1,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "answered_at": NOON,
    }
    with hospital.database.transaction() as transaction:
        transaction.connection.execute(
            insert(attachment),
            [
                {**answered, "sop_instance_uid": "2.25.1", "status": 0, "error_comment": ""},
                {
                    **answered,
                    "sop_instance_uid": "2.25.2",
                    "status": 0xB000,
                    "error_comment": "Patient ID was coerced",
                },
            ],
        )
        for number, reason in enumerate((0x0112, None)):
            transaction.connection.execute(
                insert(commitment_request),
                {
                    "transaction_uid": f"2.25.9{number}",
                    "destination": "ARCHIVE",
                    "case_id": case_id,
                    "case_version": 1,
                    "sop_instance_uids": ["2.25.1", "2.25.2"],
                    "requested_at": NOON.replace(minute=number),
                },
            )
            transaction.connection.execute(
                insert(commitment_answer),
                [
                    {
                        "transaction_uid": f"2.25.9{number}",
                        "sop_instance_uid": uid,
                        "failure_reason": why,
                    }
                    for uid, why in (("2.25.1", reason), ("2.25.2", 0x0110))
                ],
            )

    deliveries = doctor.get(f"/api/v1/cases/{case_id}").json()["deliveries"]

    [archive] = [each for each in deliveries if each["destination"] == "ARCHIVE"]
    assert [
        (each["sop_instance_uid"], each["status"], each["error_comment"])
        for each in archive["instances"]
    ] == [("2.25.1", "0x0000", ""), ("2.25.2", "0xB000", "Patient ID was coerced")]
    assert [(each["committed"], each["failure_reason"]) for each in archive["instances"]] == [
        (True, None),
        (False, "0x0110"),
    ]
