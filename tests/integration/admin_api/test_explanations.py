"""Somebody asks for the heat map of another class."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, update

from imaging_store.schema.results import explanation
from imaging_store.schema.workflow import cases
from message_contracts.identifiers import case_id_of
from message_contracts.inference import ExplanationRequested
from tests.integration.admin_api.conftest import Hospital

UID = "1.2.826.0.1.1"
EXPLANATIONS = f"/api/v1/cases/{case_id_of(UID)}/explanations"
NORMAL = {"model": "chest", "version": "1.0.0", "label": "Normal"}


@pytest.fixture
def analyzed(hospital: Hospital) -> Hospital:
    hospital.analyzed(UID)
    return hospital


def requests_of(hospital: Hospital) -> list[ExplanationRequested]:
    return [each.body for each in hospital.sent() if isinstance(each.body, ExplanationRequested)]


def answer(hospital: Hospital, **values: Any) -> None:
    row = {
        "case_id": case_id_of(UID),
        "case_version": 1,
        "model_name": "chest",
        "model_version": "1.0.0",
        "label": "Normal",
        "failures": 0,
        "answered_at": hospital.now,
    }
    with hospital.database.transaction() as transaction:
        transaction.connection.execute(insert(explanation), row | values)


def test_it_is_asked_for_once_and_had_when_it_is_there(analyzed: Hospital) -> None:
    doctor = analyzed.hire("doctor")
    before = analyzed.case(UID)

    first, again = doctor.post(EXPLANATIONS, json=NORMAL), doctor.post(EXPLANATIONS, json=NORMAL)
    answer(analyzed, sop_instance_uid="2.25.7", key="e.dcm", picture_key="e.png")
    analyzed.store.put_artifact("e.dcm", b"DICM")
    analyzed.store.put_artifact("e.png", b"PNG")
    there = doctor.post(EXPLANATIONS, json=NORMAL)

    assert [each.status_code for each in (first, again, there)] == [202, 202, 200]
    assert [each.label for each in requests_of(analyzed)] == ["Normal"]
    assert there.json()["sop_instance_uid"] == "2.25.7"
    assert doctor.get(EXPLANATIONS).json()["items"] == [there.json()]
    assert doctor.get(f"{EXPLANATIONS}/2.25.7/heatmap.png").content == b"PNG"
    assert doctor.get(f"{EXPLANATIONS}/2.25.7/instance.dcm").content == b"DICM"
    assert analyzed.case(UID) == before


def test_who_asks_until_there_is_an_answer_is_told_a_failure(analyzed: Hospital) -> None:
    admin = analyzed.hire("admin")
    admin.post(EXPLANATIONS, json=NORMAL)
    answer(analyzed, failure="It hung.", failures=1)

    told = [admin.post(EXPLANATIONS, json=NORMAL) for _ in range(2)]

    assert [each.status_code for each in told] == [200, 200]
    assert [(each.json()["failure"], each.json()["failures"]) for each in told] == [
        ("It hung.", 1)
    ] * 2
    assert admin.get(EXPLANATIONS).json()["items"] == [told[0].json()]
    assert len(requests_of(analyzed)) == 1


def test_what_failed_is_tried_again_for_who_knows_that_it_failed(analyzed: Hospital) -> None:
    admin = analyzed.hire("admin")
    admin.post(EXPLANATIONS, json=NORMAL)
    answer(analyzed, failure="It hung.", failures=1)
    knowing = NORMAL | {"failures_known": 1}

    waiting = [admin.post(EXPLANATIONS, json=knowing) for _ in range(2)]
    sent = len(requests_of(analyzed))
    with analyzed.database.transaction() as transaction:
        transaction.connection.execute(update(explanation).values(failures=2))
    failed = admin.post(EXPLANATIONS, json=knowing)
    ahead = admin.post(EXPLANATIONS, json=NORMAL | {"failures_known": 999})

    assert [each.status_code for each in (*waiting, failed, ahead)] == [202, 202, 200, 200]
    assert failed.json()["failures"] == 2
    assert sent == len(requests_of(analyzed)) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": "Fracture"}, "Bacterial pneumonia, Normal"),
        ({"model": "hip"}, "no such model has read"),
    ],
    ids=["class", "model"],
)
def test_what_was_not_read_cannot_be_explained(
    analyzed: Hospital, changes: dict[str, str], words: str
) -> None:
    refused = analyzed.hire("doctor").post(EXPLANATIONS, json=NORMAL | changes)

    assert refused.status_code == 404
    assert refused.json()["type"].endswith(":not-explainable")
    assert words in refused.json()["detail"]
    assert requests_of(analyzed) == []


def test_it_is_for_who_has_logged_in(analyzed: Hospital) -> None:
    anybody = analyzed.anybody()

    assert anybody.post(EXPLANATIONS, json=NORMAL).status_code == 401
    assert anybody.get(EXPLANATIONS).status_code == 401
    assert anybody.get(f"{EXPLANATIONS}/2.25.7/instance.dcm").status_code == 401


def test_that_of_a_version_that_is_not_shown_is_not_found(analyzed: Hospital) -> None:
    answer(analyzed, sop_instance_uid="2.25.7", key="e.dcm", picture_key="e.png")
    analyzed.store.put_artifact("e.dcm", b"DICM")
    analyzed.store.put_artifact("e.png", b"PNG")
    doctor = analyzed.hire("doctor")
    paths = [f"{EXPLANATIONS}/2.25.7/{name}" for name in ("heatmap.png", "instance.dcm")]

    before = [doctor.get(path).status_code for path in paths]
    with analyzed.database.transaction() as transaction:
        transaction.connection.execute(
            update(cases).where(cases.c.id == case_id_of(UID)).values(version=2)
        )
    after = [doctor.get(path).status_code for path in paths]

    assert (before, after) == ([200, 200], [404, 404])


def test_that_of_another_case_is_not_found(analyzed: Hospital) -> None:
    answer(analyzed, sop_instance_uid="2.25.7", key="e.dcm", picture_key="e.png")
    with analyzed.database.transaction() as transaction:
        transaction.connection.execute(update(explanation).values(case_id=case_id_of("1.2.3")))

    found = analyzed.hire("doctor").get(f"{EXPLANATIONS}/2.25.7/instance.dcm")

    assert found.status_code == 404
