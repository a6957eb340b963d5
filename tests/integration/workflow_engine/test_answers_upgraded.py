"""What models had answered when the release was changed is counted by the next."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import select, text

from imaging_store import migrations
from imaging_store.schema.workflow import inference_result
from service_runtime.database import Database
from tests.conftest import CHECKOUT

GOLDEN = CHECKOUT / "tests" / "golden" / "messages" / "inference.completed.v1.json"
AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["empty_sqlite_url", "empty_postgresql_url"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def of_the_release_before(url: str) -> None:
    """Lay down the tables as they were, with an answer, an uncertain one and a failure."""
    completed = json.loads(GOLDEN.read_bytes())["data"]
    answers = [completed, completed | {"uncertain": True}, None]
    database = Database(url)
    with database.transaction() as transaction:
        command.upgrade(migrations._config(transaction), "0004_digests")
        for number, answer in enumerate(answers, start=1):
            case_id = UUID(int=number)
            bound = {
                "id": case_id.hex,
                "uid": f"2.25.{number}",
                "at": AT,
                "completed": None if answer is None else json.dumps(answer),
                "failure": None if answer else "Truncated.",
            }
            transaction.connection.execute(
                text(
                    "INSERT INTO cases (id, study_instance_uid, status, version, revision, on_hold,"
                    " opened_at, changed_at) VALUES (:id, :uid, 'AI_ANALYZED', 1, 1, false, :at,"
                    " :at)"
                ),
                bound,
            )
            transaction.connection.execute(
                text(
                    "INSERT INTO inference_result (case_id, case_version, model_name,"
                    " model_version, requested_at, answered_at, completed, failure)"
                    " VALUES (:id, 1, 'chest', '1.0.0', :at, :at, :completed, :failure)"
                ),
                bound,
            )
    database.close()


def test_what_was_found_before_stands_beside_its_answer(url: str) -> None:
    of_the_release_before(url)

    migrations.upgrade(url)

    database = Database(url)
    with database.reading() as connection:
        rows = connection.execute(
            select(inference_result).order_by(inference_result.c.case_id)
        ).all()
    database.close()
    assert [(row.label, row.probability, row.refused) for row in rows] == [
        ("Normal", 0.75, False),
        ("Uncertain", 0.75, False),
        (None, None, False),
    ]
