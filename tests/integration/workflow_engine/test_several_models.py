"""Several models read one study; those in shadow leave no trace in its case."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select, update

from imaging_store.model_registry import ModelDecision
from imaging_store.schema.administration import model_decision
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.results import model
from imaging_store.schema.workflow import history, inference_result, signature
from message_contracts.case import CaseStatus, Release, Stage
from message_contracts.delivery import AttachmentRequested
from message_contracts.destination import PacsDestination
from message_contracts.inference import InferenceFailed, ModelReference
from message_contracts.model_description import ModelDescription
from service_runtime.database import Database
from tests.workflow_journey import NOON, Ward, a_model
from workflow_engine import routable

UID = "1.2.826.0.1.7"


def described(name: str, version: str = "1.0.0", **rule: Any) -> ModelDescription:
    base = a_model(name).model_dump(mode="json")
    device_uid = base["device_uid"] if version == "1.0.0" else f"{base['device_uid'][:40]}1"
    return ModelDescription.model_validate(
        base
        | {"version": version, "device_uid": device_uid}
        | {"applies_to": base["applies_to"] | rule}
    )


def decide(ward: Ward, name: str, version: str, decision: ModelDecision) -> None:
    with ward.database.transaction() as transaction:
        transaction.connection.execute(
            insert(model_decision),
            {
                "model_name": name,
                "model_version": version,
                "decision": decision.value,
                "decided_at": NOON,
                "decided_by": "an admin",
                "why": "Tests.",
            },
        )


def failed(uid: str, name: str) -> InferenceFailed:
    return Ward.failed(None, uid).model_copy(  # type: ignore[arg-type]
        update={"model": ModelReference(name=name, version="1.0.0")}
    )


@pytest.fixture
def two(ward: Ward) -> Ward:
    """Have a study be asked of two models."""
    ward.register(described("bones"))
    ward.receive(UID)
    ward.complete(UID)
    return ward


def test_every_model_whose_rule_fits_is_asked(two: Ward) -> None:
    assert [each.model.name for each in two.requested_models()] == ["bones", "chest"]
    assert two.case(UID).status is CaseStatus.PENDING_AI


def test_a_case_waits_until_all_have_answered(two: Ward) -> None:
    two.deliver(two.completed(UID, described="bones"))
    assert two.case(UID).status is CaseStatus.PENDING_AI

    two.deliver(two.completed(UID))

    case = two.case(UID)
    assert (case.status, case.stage) == (CaseStatus.AI_ANALYZED, Stage.DOCTOR)
    with two.database.reading() as connection:
        triggers = connection.execute(
            select(history.c.trigger).order_by(history.c.sequence)
        ).scalars()
        assert list(triggers)[-2:] == ["model_answered", "inference_completed"]


@pytest.mark.parametrize("first", ["completed", "failed"])
def test_one_that_failed_does_not_hide_what_another_has_read(two: Ward, first: str) -> None:
    answers = [two.completed(UID, described="bones"), failed(UID, "chest")]

    for answer in answers if first == "completed" else answers[::-1]:
        two.deliver(answer)

    assert two.case(UID).status is CaseStatus.AI_ANALYZED


def test_where_all_failed_the_case_has_failed(two: Ward) -> None:
    for name in ("bones", "chest"):
        two.deliver(failed(UID, name))

    assert two.case(UID).status is CaseStatus.AI_FAILED


def test_what_failed_may_be_made_up_for_before_anybody_signs(two: Ward) -> None:
    two.deliver(two.completed(UID, described="bones"))
    two.deliver(failed(UID, "chest"))

    two.deliver(two.completed(UID))

    case = two.case(UID)
    assert case.status is CaseStatus.AI_ANALYZED
    with two.database.reading() as connection:
        failures = connection.execute(select(inference_result.c.failure)).scalars().all()
    assert failures == [None, None]


def test_what_is_made_up_for_follows_what_has_gone_to_a_reading_room(database: Database) -> None:
    room = PacsDestination(
        name="room", ae_title="ROOM", host="127.0.0.1", port=104, release=Release.AI_ANALYZED
    )
    ward = Ward(database, (room,))
    for name in ("bones", "chest"):
        ward.register(described(name))
    ward.receive(UID)
    ward.complete(UID)
    of_bones = (f"{UID}.1.801", f"{UID}.1.802")
    bones = ward.completed(UID, described="bones")
    ward.deliver(bones.model_copy(update={"result_sop_instance_uids": of_bones}))
    ward.deliver(failed(UID, "chest"))

    chest = ward.completed(UID)
    ward.deliver(chest)

    asked = [
        each.body.sop_instance_uids
        for each in ward.sent()
        if isinstance(each.body, AttachmentRequested)
    ]
    assert asked == [of_bones, of_bones + chest.result_sop_instance_uids]


def test_after_a_signature_it_is_recorded_and_changes_nothing(two: Ward) -> None:
    two.deliver(two.completed(UID, described="bones"))
    two.deliver(failed(UID, "chest"))
    two.verified(UID)

    two.deliver(two.completed(UID))

    assert two.case(UID).status is CaseStatus.DOCTOR_VERIFIED
    with two.database.reading() as connection:
        triggers = connection.execute(
            select(history.c.trigger).order_by(history.c.sequence)
        ).scalars()
        assert list(triggers)[-1] == "late_result_recorded"


@pytest.mark.parametrize(
    ("probability", "finding"), [(0.9, "Bacterial pneumonia"), (0.1, "Bacterial pneumonia; Normal")]
)
def test_a_doctor_agrees_with_all_of_them(two: Ward, probability: float, finding: str) -> None:
    two.deliver(two.completed(UID, described="bones"))
    other = two.completed(UID, probability=probability)
    ordered = sorted(other.probabilities, key=lambda each: -each.probability)
    two.deliver(other.model_copy(update={"probabilities": tuple(ordered), "uncertain": False}))

    two.verified(UID)

    with two.database.reading() as connection:
        assert connection.execute(select(signature.c.finding)).scalar_one() == finding


def test_the_highest_priority_reads_and_the_history_says_whom_it_passed_over(ward: Ward) -> None:
    ward.register(described("special", priority=3))
    ward.receive(UID)

    ward.complete(UID)

    assert [each.model.name for each in ward.requested_models()] == ["special"]
    with ward.database.reading() as connection:
        details = connection.execute(
            select(history.c.details).where(history.c.trigger == "model_asked")
        ).scalar_one()
    assert list(details["models"]) == ["special 1.0.0"]
    assert details["passed_over"] == ["chest 1.0.0"]


def test_a_shadow_is_asked_and_the_case_knows_nothing_of_it(ward: Ward) -> None:
    ward.register(described("chest", "2.0.0"))
    with ward.database.transaction() as transaction:
        transaction.connection.execute(
            update(model).where(model.c.version == "2.0.0").values(retired_at=NOON)
        )
    decide(ward, "chest", "2.0.0", ModelDecision.SHADOW)
    ward.receive(UID)
    ward.complete(UID)

    asked = {each.model.version: each.shadow for each in ward.requested_models()}
    ward.deliver(ward.completed(UID))

    assert asked == {"1.0.0": False, "2.0.0": True}
    assert ward.case(UID).status is CaseStatus.AI_ANALYZED
    with ward.database.reading() as connection:
        rows = connection.execute(select(inference_result)).all()
        details = connection.execute(select(history.c.details)).scalars().all()
    assert [row.model_version for row in rows] == ["1.0.0"]
    assert "2.0.0" not in str(details)


def test_a_decision_holds_for_the_next_study(ward: Ward) -> None:
    ward.register(described("chest", "2.0.0"))
    decide(ward, "chest", "2.0.0", ModelDecision.ACTIVATE)
    ward.receive(UID)

    ward.complete(UID)

    assert [each.model.version for each in ward.requested_models()] == ["2.0.0"]


def test_a_rule_that_is_not_understood_stops_no_other(ward: Ward) -> None:
    ward.register(described("odd"))
    with ward.database.transaction() as transaction:
        transaction.connection.execute(
            update(model)
            .where(model.c.name == "odd")
            .values(description={"applies_to": {"color": "blue"}})
        )
    ward.receive(UID)

    ward.complete(UID)

    assert [each.model.name for each in ward.requested_models()] == ["chest"]


@pytest.mark.parametrize(
    ("age", "birth_date", "asked"),
    [("007Y", "19700101", 1), ("", "20190301", 1), ("", "19700101", 0), ("", "", 0)],
)
def test_side_series_sender_and_age_are_those_of_the_stored_study(
    ward: Ward, age: str, birth_date: str, asked: int
) -> None:
    with ward.database.transaction() as transaction:
        transaction.connection.execute(update(model).values(retired_at=NOON))
    ward.register(
        described(
            "children",
            laterality={"values": ["L"], "absent": "refuse"},
            series_description={"patterns": ["*hand*"], "absent": "refuse"},
            calling_ae_title={"values": ["MODALITY"], "absent": "refuse"},
            patient_age={"below_years": 18, "absent": "refuse"},
        )
    )
    ward.receive(UID, patient_birth_date=birth_date)
    with ward.database.transaction() as transaction:
        transaction.connection.execute(
            update(instance).values(laterality="L", series_description="Left hand AP")
        )
        transaction.connection.execute(update(study).values(patient_age=age))

    ward.complete(UID)

    assert len(ward.requested_models()) == asked


def test_a_dry_run_says_why_and_asks_nobody(ward: Ward) -> None:
    ward.receive(UID)
    ward.receive(UID, modality="MR")

    with ward.database.reading() as connection:
        explained = routable.explain_study(connection, UID)
        assert routable.explain_study(connection, "1.2.3") is None

    assert explained is not None
    [chest] = explained
    assert chest.is_asked
    assert sorted(each.is_read for each in chest.matches) == [False, True]
    assert ward.sent() == []
