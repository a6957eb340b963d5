"""What a process enters in the database by itself, alone or as a group."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from dicom_listener import index as index_module
from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome, enter
from dicom_listener.index import OwnIndex
from dicom_listener.open_associations import open_for
from service_runtime.database import Database, Transaction
from tests.integration.dicom_listener.indexed import NOON, an_arrival

# What PostgreSQL raises in one of the transactions that wait for each other.
_GIVEN_UP = "DO $$ BEGIN RAISE 'deadlock detected' USING ERRCODE = '40P01'; END $$"


def test_an_association_that_could_not_be_let_go_is_told_of(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(index_module, "let_go", fail)
    association = open_for("MODALITY")
    association.study_instance_uid = "1.2"

    with capture_logs() as logged:
        OwnIndex(database).end(association)

    assert [each["event"] for each in logged] == ["association.left_open"]


def test_one_that_the_database_refuses_takes_no_other_with_it(database: Database) -> None:
    good, bad = an_arrival(), an_arrival()
    bad = bad._replace(at=NOON.replace(tzinfo=None))

    answers = OwnIndex(database).enter(lambda: [good, bad, good])

    assert answers[0] is Outcome.NEW
    assert isinstance(answers[1], Exception)
    assert answers[2] is Outcome.SAME_AGAIN


def test_a_group_that_is_given_up_for_another_transaction_is_entered_after_it(
    postgresql_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgresql_database_url)
    tries = 0

    def entered(transaction: Transaction, arrivals: Sequence[Arrival]) -> list[Outcome]:
        nonlocal tries
        tries += 1
        if tries == 1:
            transaction.connection.execute(text(_GIVEN_UP))
        return enter(transaction, arrivals)

    monkeypatch.setattr(index_module, "enter", entered)
    group = [an_arrival() for _ in range(2)]

    assert OwnIndex(database).enter(lambda: group) == [Outcome.NEW] * 2
    assert tries == 2
    database.close()
