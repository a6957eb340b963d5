"""Who may send: listed, changed and struck off by admins, shown to everybody who is signed in."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from admin_api.application_entities import (
    Entry,
    InvalidApplicationEntity,
    require_a_commitment_period,
)
from imaging_store.retention import Retention
from tests.integration.admin_api.conftest import Hospital

PATH = "/api/v1/application-entities"
EVERYTHING = {
    "networks": ["10.1.2.0/24", "2001:db8::/32"],
    "quiet_period_s": 5.5,
    "default_issuer_of_patient_id": "CLINIC",
    "time_zone": "Europe/Vienna",
    "urgency": "urgent",
    "max_associations": 3,
    "commitment": True,
    "host": "ct1.hospital.example",
    "port": 104,
    "tls": True,
}


def test_an_admin_lists_an_ae_and_everybody_sees_it(hospital: Hospital) -> None:
    admin, doctor = hospital.hire("admin"), hospital.hire("doctor")

    put = admin.put(f"{PATH}/CT 1", json=EVERYTHING)

    assert put.status_code == 200
    [listed] = doctor.get(PATH).json()
    assert listed == put.json()
    assert listed | EVERYTHING == listed
    assert (listed["ae_title"], listed["changed_by"]) == ("CT 1", "Admin Person")


def test_what_is_not_said_is_the_installations(hospital: Hospital) -> None:
    admin = hospital.hire("admin")
    admin.put(f"{PATH}/CT1", json=EVERYTHING)

    admin.put(f"{PATH}/CT1", json={})

    [listed] = admin.get(PATH).json()
    assert (listed["networks"], listed["quiet_period_s"], listed["urgency"]) == (
        [],
        None,
        "routine",
    )
    assert (listed["time_zone"], listed["host"], listed["commitment"]) == (None, None, False)


def test_an_ae_is_struck_off_once(hospital: Hospital) -> None:
    admin = hospital.hire("admin")
    admin.put(f"{PATH}/WARD%2FCR", json={"networks": ["10.0.0.7"]})
    [listed] = admin.get(PATH).json()

    removed = [admin.delete(f"{PATH}/WARD%2FCR").status_code for _ in range(2)]

    assert (listed["ae_title"], listed["networks"]) == ("WARD/CR", ["10.0.0.7/32"])
    assert removed == [204, 404]
    assert admin.get(PATH).json() == []


def test_what_cannot_be_taken_is_named(hospital: Hospital) -> None:
    admin = hospital.hire("admin")

    entry = admin.put(f"{PATH}/CT1", json={"networks": ["10.1.2.3/24"]})
    titles = ["SEVENTEEN_LETTERS", "BACK%5CSLASH", "%20CT1", "M%C3%9CLLER", "%20"]
    answers = [admin.put(f"{PATH}/{title}", json={}).status_code for title in titles]

    assert entry.status_code == 422
    assert "networks" in entry.text
    assert answers == [422] * len(titles)
    assert admin.get(PATH).json() == []


def test_who_is_no_admin_changes_nothing(hospital: Hospital) -> None:
    client = hospital.hire("doctor")

    answers = [client.put(f"{PATH}/CT1", json={}), client.delete(f"{PATH}/CT1")]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert client.get(PATH).json() == []


def test_nobody_sees_it_without_a_token(hospital: Hospital) -> None:
    assert hospital.anybody().get(PATH).status_code == 401


def test_nobody_may_ask_for_commitments_before_they_mean_something() -> None:
    entry = Entry(commitment=True)
    without = Retention(None, watermark_bytes=0, reserve_bytes=0)

    with pytest.raises(InvalidApplicationEntity, match="COUNTERSIGN_COMMITMENT_DAYS"):
        require_a_commitment_period(entry, without)

    require_a_commitment_period(Entry(), without)
    require_a_commitment_period(entry, replace(without, commitment=timedelta(days=1)))
