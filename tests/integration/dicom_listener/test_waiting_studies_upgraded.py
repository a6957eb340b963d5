"""A study that was waited for when the release was changed is announced by the next, once."""

from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import MetaData, Table

from dicom_listener.announcer import Announcer
from dicom_listener.completion import Limits
from imaging_store import migrations
from message_contracts import catalogue
from message_contracts.ingest import CompletionReason
from service_runtime.database import Database
from service_runtime.messaging.tables import message

LIMITS = Limits(association_timeout=timedelta(seconds=300), deadline=timedelta(hours=4))


@pytest.fixture(params=["empty_sqlite_url", "empty_postgresql_url"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def of_the_journey(url: str, began: datetime) -> None:
    """Lay down the tables of the release before, with one study waiting and one announced."""
    database = Database(url)
    with database.transaction() as transaction:
        command.upgrade(migrations._config(transaction), "0001_pre_the_journey")
        connection = transaction.connection
        study = Table("study", MetaData(), autoload_with=connection)
        texts = {column.name: "" for column in study.c if not column.nullable}
        for uid, since, version in (("1", began - timedelta(seconds=20), 0), ("2", None, 1)):
            values = {
                "study_instance_uid": uid,
                "opened_at": began,
                "pending_since": since,
                "version": version,
            }
            connection.execute(study.insert(), texts | values)
    database.close()


def test_a_waiting_study_is_waited_for_and_then_announced_once(url: str) -> None:
    began = datetime.now(UTC)
    of_the_journey(url, began)
    migrations.upgrade(url)
    database = Database(url)
    announcer = Announcer(database, LIMITS)

    def announced() -> list[tuple[str, int, CompletionReason]]:
        with database.reading() as connection:
            bodies = [
                catalogue.decode(row.body).body for row in connection.execute(message.select())
            ]
        return [(body.study_instance_uid, body.study_version, body.reason) for body in bodies]

    announcer.look(began)
    assert announced() == []
    for _ in range(2):
        announcer.look(datetime.now(UTC) + timedelta(seconds=30))

    assert announced() == [("1", 1, CompletionReason.QUIET)]
    database.close()
