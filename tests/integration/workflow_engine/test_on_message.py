from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from imaging_store.schema.results import model, result_object
from imaging_store.schema.workflow import destination_delivery, history, inference_result
from message_contracts.case import CaseStatus, Release, Stage
from message_contracts.delivery import AttachmentDelivered, AttachmentFailed
from message_contracts.destination import PacsDestination
from message_contracts.identifiers import case_id_of
from service_runtime.database import Database
from tests.workflow_journey import NOON, Ward, a_model
from workflow_engine.on_message import NotAskedFor

UID = "1.2.826.0.1.1"


def the_history(ward: Ward) -> list[str]:
    with ward.database.reading() as connection:
        rows = connection.execute(select(history.c.trigger).order_by(history.c.sequence))
        return list(rows.scalars())


def test_the_first_instance_opens_a_case(ward: Ward) -> None:
    ward.opened(UID)

    assert ward.case(UID).status is CaseStatus.RECEIVING


def test_a_complete_study_is_read_by_the_model_whose_rule_fits(ward: Ward) -> None:
    image = ward.receive(UID)
    ward.receive(UID, modality="MR")
    ward.opened(UID)

    received = ward.complete(UID)

    asked = ward.sent()
    assert ward.case(UID).status is CaseStatus.PENDING_AI
    assert [each.body.sop_instance_uids for each in asked] == [(image,)]
    assert asked[0].causation_id == received.id


def test_a_study_that_no_rule_fits_says_why(ward: Ward) -> None:
    ward.receive(UID, modality="MR")
    ward.opened(UID)

    ward.complete(UID)

    with ward.database.reading() as connection:
        details = connection.execute(
            select(history.c.details).where(history.c.trigger == "no_rule_fits")
        ).scalar_one()
    assert ward.case(UID).status is CaseStatus.NO_MODEL
    assert details["reasons"] == ["chest 1.0.0: Modality (0008,0060) is not DX or CR."]
    assert ward.sent() == []


def test_a_retired_model_is_not_asked(ward: Ward) -> None:
    with ward.database.transaction() as transaction:
        transaction.connection.execute(update(model).values(retired_at=NOON))
    ward.receive(UID)

    ward.complete(UID)

    assert ward.case(UID).status is CaseStatus.NO_MODEL


def test_a_study_may_be_complete_before_it_was_opened(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)

    ward.opened(UID)

    assert ward.case(UID).status is CaseStatus.PENDING_AI


def test_a_later_version_may_overtake_the_first(ward: Ward) -> None:
    ward.receive(UID, 1)
    ward.receive(UID, 2)
    ward.complete(UID, 2)

    ward.complete(UID, 1)

    case = ward.case(UID)
    assert (case.status, case.version) == (CaseStatus.PENDING_AI, 2)
    assert [each.case_version for each in ward.requested_models()] == [2]


def test_findings_bring_a_case_to_the_doctor(ward: Ward) -> None:
    case = ward.analyzed(UID)

    assert (case.status, case.stage) == (CaseStatus.AI_ANALYZED, Stage.DOCTOR)


def test_a_model_that_fails_brings_a_case_to_the_doctor(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)

    ward.deliver(ward.failed(UID))

    case = ward.case(UID)
    assert (case.status, case.stage) == (CaseStatus.AI_FAILED, Stage.DOCTOR)


def test_a_request_made_again_may_succeed(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)
    ward.deliver(ward.failed(UID))

    ward.deliver(ward.completed(UID))

    assert ward.case(UID).status is CaseStatus.AI_ANALYZED


def test_a_failure_after_the_findings_changes_nothing(ward: Ward) -> None:
    before = ward.analyzed(UID)

    ward.deliver(ward.failed(UID))

    assert ward.case(UID) == before


def test_a_late_image_asks_the_model_again(ward: Ward) -> None:
    ward.analyzed(UID)
    ward.receive(UID, 2)

    ward.complete(UID, 2)

    case = ward.case(UID)
    assert (case.status, case.stage, case.version) == (CaseStatus.PENDING_AI, None, 2)
    assert [len(each.sop_instance_uids) for each in ward.requested_models()] == [1, 2]


def test_findings_of_an_older_version_are_recorded_and_change_nothing(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)
    ward.receive(UID, 2)
    ward.complete(UID, 2)
    before = ward.case(UID)

    ward.deliver(ward.completed(UID, 1))

    with ward.database.reading() as connection:
        answered = connection.execute(
            select(inference_result.c.answered_at).where(inference_result.c.case_version == 1)
        ).scalar_one()
    assert ward.case(UID) == before
    assert answered is not None
    assert the_history(ward)[-1] == "late_result_recorded"


def test_every_message_twice_is_every_message_once(ward: Ward) -> None:
    ward.receive(UID)
    envelopes = [ward.opened(UID), ward.complete(UID), ward.deliver(ward.completed(UID))]
    before, told = ward.case(UID), the_history(ward)

    for envelope in [*envelopes, *reversed(envelopes)]:
        ward.redeliver(envelope)
    ward.complete(UID)
    ward.deliver(ward.completed(UID))

    assert ward.case(UID) == before
    assert the_history(ward) == told
    assert len(ward.sent()) == 1


def test_a_conflict_puts_a_case_on_hold_and_findings_still_arrive(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)

    ward.conflict(UID)
    ward.deliver(ward.completed(UID))

    case = ward.case(UID)
    assert (case.on_hold, case.hold_reason) == (True, "identity_conflict")
    assert case.status is CaseStatus.AI_ANALYZED


def test_a_conflict_may_come_first(ward: Ward) -> None:
    ward.conflict(UID)

    assert ward.case(UID).on_hold


def test_an_answer_that_nobody_asked_for_is_a_dead_letter(ward: Ward) -> None:
    ward.receive(UID)
    ward.complete(UID)

    with pytest.raises(NotAskedFor, match="model"):
        ward.deliver(ward.completed(UID, described="other"))
    with pytest.raises(NotAskedFor, match="case_id"):
        ward.deliver(ward.completed("1.2.3"))


READING_ROOM = PacsDestination(
    name="READING", ae_title="READING", host="127.0.0.1", port=104, release=Release.AI_ANALYZED
)


@pytest.fixture
def reading_room(database: Database) -> Ward:
    ward = Ward(database, (READING_ROOM,))
    ward.register(a_model())
    ward.analyzed(UID)
    return ward


def the_delivery(ward: Ward) -> tuple[str, str | None]:
    with ward.database.reading() as connection:
        row = connection.execute(select(destination_delivery)).one()
    return row.state, row.reason


def an_answer(**extra: str) -> dict[str, object]:
    return {
        "case_id": case_id_of(UID),
        "case_version": 1,
        "destination": "READING",
        "outcomes": (),
        **extra,
    }


def test_a_reading_room_gets_results_as_soon_as_there_are_any(reading_room: Ward) -> None:
    assert reading_room.attached() == [("READING", 1)]
    assert the_delivery(reading_room) == ("PENDING", None)


def test_a_map_is_asked_for_and_sent_only_where_a_destination_wants_it(
    database: Database,
) -> None:
    workstation = READING_ROOM.model_copy(update={"name": "3D", "parametric_map": True})
    ward = Ward(database, (READING_ROOM, workstation))
    ward.register(a_model())
    ward.receive(UID)
    ward.complete(UID)
    answer = ward.completed(UID)
    map_uid = f"{UID}.1.903"
    with database.transaction() as transaction:
        transaction.connection.execute(
            insert(result_object),
            {
                "sop_instance_uid": map_uid,
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.30",
                "study_instance_uid": UID,
                "series_instance_uid": f"{UID}.3",
                "case_id": answer.case_id,
                "case_version": 1,
                "model_name": "chest",
                "model_version": "1.0.0",
                "key": "results/PM.dcm",
                "sha256": "0" * 64,
                "made_at": ward.now,
            },
        )

    with_map = (*answer.result_sop_instance_uids, map_uid)
    ward.deliver(answer.model_copy(update={"result_sop_instance_uids": with_map}))

    asked, *sent = [each.body for each in ward.sent()]
    assert asked.parametric_map
    assert {each.destination: each.sop_instance_uids for each in sent} == {
        "READING": answer.result_sop_instance_uids,
        "3D": with_map,
    }


def test_what_a_destination_answers_stands_beside_the_case(reading_room: Ward) -> None:
    before = reading_room.case(UID)

    reading_room.deliver(AttachmentFailed(**an_answer(reason="it refuses the SOP class")))
    failed = the_delivery(reading_room)
    reading_room.deliver(AttachmentDelivered(**an_answer()))

    assert failed == ("FAILED", "it refuses the SOP class")
    assert the_delivery(reading_room) == ("DELIVERED", None)
    assert reading_room.case(UID) == before


def test_the_case_says_what_it_failed_for_last(reading_room: Ward) -> None:
    before = reading_room.case(UID)
    reasons = ["it refuses the SOP class", "it is full", "it refuses the SOP class"]

    shown = []
    for reason in reasons:
        reading_room.deliver(AttachmentFailed(**an_answer(reason=reason)))
        shown.append(the_delivery(reading_room))

    assert shown == [("FAILED", reason) for reason in reasons]
    assert reading_room.case(UID) == before


def test_the_same_failure_once_more_is_no_news(reading_room: Ward) -> None:
    reading_room.deliver(AttachmentFailed(**an_answer(reason="it is full")))
    before = the_history(reading_room)

    reading_room.deliver(AttachmentFailed(**an_answer(reason="it is full")))

    assert the_history(reading_room) == before


def test_what_was_delivered_stays_delivered(reading_room: Ward) -> None:
    reading_room.deliver(AttachmentDelivered(**an_answer()))

    reading_room.deliver(AttachmentFailed(**an_answer(reason="too late")))

    assert the_delivery(reading_room) == ("DELIVERED", None)


def test_a_destination_that_was_sent_nothing_cannot_answer(reading_room: Ward) -> None:
    with pytest.raises(NotAskedFor, match="destination"):
        reading_room.deliver(AttachmentDelivered(**an_answer(destination="OTHER")))
