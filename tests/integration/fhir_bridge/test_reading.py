from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import update

from fhir_bridge.reading import CaseOnHold, Corrected, UnknownCase, load
from fhir_bridge.signed_report import Decision, NotSigned
from imaging_store.schema.workflow import cases, hold
from message_contracts.case import Stage
from service_runtime.database import Database
from tests.integration.fhir_bridge.signed_case import keep_case, keep_signature
from tests.unit.fhir_bridge.reports import ADMIN, CASE_ID, NOON, a_report, an_override, doctor


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.close()


def test_what_was_signed_is_read_as_it_was_signed(database: Database) -> None:
    keep_case(database)

    with database.reading() as connection:
        assert load(connection, CASE_ID, 1) == a_report()


def test_of_several_models_one_that_found_something_comes_first(database: Database) -> None:
    chest = a_report().reading
    assert chest is not None
    unsure = replace(chest, model_name="a-model", device_uid="2.25.8", uncertain=True)
    bones = replace(chest, model_name="z-model", device_uid="2.25.9")
    report = replace(a_report(), others=(bones, unsure))
    keep_case(database, report)

    with database.reading() as connection:
        loaded = load(connection, CASE_ID, 1)

    assert loaded == report
    assert loaded.finding is not None
    assert loaded.finding.text == chest.finding.label


def test_a_case_without_a_reading_is_the_doctors_alone(database: Database) -> None:
    report = a_report(doctor(Decision.OVERRIDE, "Fracture", "Seen."), reading=None)
    keep_case(database, report)

    with database.reading() as connection:
        assert load(connection, CASE_ID, 1) == report


def test_a_voided_signature_does_not_count(database: Database) -> None:
    report = an_override()
    keep_case(database, report)
    first = replace(doctor(), signed_at=NOON - timedelta(minutes=30))
    with database.transaction() as tx:
        keep_signature(tx, report, first, voided_at=NOON - timedelta(minutes=10))

    with database.reading() as connection:
        assert load(connection, CASE_ID, 1).decision is Decision.OVERRIDE


def test_a_report_stays_signed_when_late_images_void_its_signatures(database: Database) -> None:
    keep_case(database, voided_at=ADMIN.signed_at + timedelta(days=1))

    with database.reading() as connection:
        assert load(connection, CASE_ID, 1) == a_report()


def test_a_second_report_amends_the_first(database: Database) -> None:
    keep_case(database)
    keep_case(database, a_report(version=2))

    with database.reading() as connection:
        assert load(connection, CASE_ID, 2).amends
        assert not load(connection, CASE_ID, 1).amends


def test_a_version_that_nobody_approved_is_not_signed(database: Database) -> None:
    report = a_report()
    keep_case(database, report)
    with database.transaction() as tx:
        keep_signature(tx, replace(report, version=2), report.doctor)

    with database.reading() as connection, pytest.raises(NotSigned):
        load(connection, CASE_ID, 2)


def test_an_approval_without_the_pharmacist_is_no_report(database: Database) -> None:
    report = a_report()
    keep_case(database, report)
    with database.transaction() as tx:
        for each in (report.doctor, report.admin):
            keep_signature(tx, replace(report, version=2), each)

    with database.reading() as connection, pytest.raises(NotSigned):
        load(connection, CASE_ID, 2)


def test_an_unknown_case_is_told_as_such(database: Database) -> None:
    with database.reading() as connection, pytest.raises(UnknownCase):
        load(connection, uuid4(), 1)


def test_a_case_on_hold_is_not_reported_until_somebody_has_decided(database: Database) -> None:
    keep_case(database)
    with database.transaction() as tx:
        tx.connection.execute(update(cases).values(on_hold=True))

    with database.reading() as connection, pytest.raises(CaseOnHold):
        load(connection, CASE_ID, 1)


def test_a_report_that_was_signed_before_a_correction_is_not_told(database: Database) -> None:
    keep_case(database)
    with database.transaction() as tx:
        tx.connection.execute(
            hold.insert(),
            {
                "id": uuid4(),
                "case_id": CASE_ID,
                "reason": "identity_conflict",
                "needs_decision": True,
                "sop_instance_uid": "1.2.3",
                "began_at": NOON,
                "until_version": 2,
                "ended_at": NOON,
            },
        )

    with database.reading() as connection, pytest.raises(Corrected):
        load(connection, CASE_ID, 1)


def test_the_stages_are_told_apart(database: Database) -> None:
    keep_case(database)

    with database.reading() as connection:
        stages = [it.stage for it in load(connection, CASE_ID, 1).signatures]
    assert stages == [Stage.DOCTOR, Stage.PHARMACIST, Stage.ADMIN]


def test_what_an_earlier_report_filed_of_other_models_is_known(database: Database) -> None:
    chest = a_report().reading
    assert chest is not None
    others = (replace(chest, model_name="y-model"), replace(chest, model_name="z-model"))
    keep_case(database, replace(a_report(), others=others))
    # Of two, one stays.
    second = replace(a_report(version=2, amends=True), others=others[:1])
    keep_case(database, second)
    keep_case(database, replace(an_override(), version=3, amends=True))

    with database.reading() as connection:
        assert load(connection, CASE_ID, 1).withdrawn == ()
        assert load(connection, CASE_ID, 2).withdrawn == ("z-model",)
        assert load(connection, CASE_ID, 3).withdrawn == ("y-model", "z-model")
