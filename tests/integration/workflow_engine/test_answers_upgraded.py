"""What models had answered when the release was changed is counted by the next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import Engine, event, select, text

from imaging_store import migrations
from imaging_store.schema.workflow import inference_result
from service_runtime.database import Database
from tests.conftest import CHECKOUT

GOLDEN = CHECKOUT / "tests" / "golden" / "messages" / "inference.completed.v1.json"
COMPLETED: dict[str, Any] = json.loads(GOLDEN.read_bytes())["data"]
AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["empty_sqlite_url", "empty_postgresql_url"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def of_the_release_before(url: str, answers: Sequence[dict[str, Any] | None]) -> None:
    """Lay down the tables as they were, with these answers; each second one is a later version."""
    rows = [
        {
            "id": UUID(int=number // 2).hex,
            "uid": f"2.25.{number // 2}",
            "version": number % 2 + 1,
            "at": AT,
            "completed": None if answer is None else json.dumps(answer),
            "failure": None if answer else "Truncated.",
        }
        for number, answer in enumerate(answers)
    ]
    database = Database(url)
    with database.transaction() as transaction:
        command.upgrade(migrations._config(transaction), "0004_digests")
        transaction.connection.execute(
            text(
                "INSERT INTO cases (id, study_instance_uid, status, version, revision, on_hold,"
                " opened_at, changed_at) VALUES (:id, :uid, 'AI_ANALYZED', 2, 1, false, :at, :at)"
            ),
            [row for row in rows if row["version"] == 1],
        )
        transaction.connection.execute(
            text(
                "INSERT INTO inference_result (case_id, case_version, model_name,"
                " model_version, requested_at, answered_at, completed, failure)"
                " VALUES (:id, :version, 'chest', '1.0.0', :at, :at, :completed, :failure)"
            ),
            rows,
        )
    database.close()


def found(url: str) -> list[tuple[str | None, float | None, bool]]:
    """Return what stands beside each answer, in the order in which they were laid down."""
    database = Database(url)
    with database.reading() as connection:
        rows = connection.execute(
            select(inference_result).order_by(
                inference_result.c.case_id, inference_result.c.case_version
            )
        ).all()
    database.close()
    return [(row.label, row.probability, row.refused) for row in rows]


def test_what_was_found_before_stands_beside_its_answer(url: str) -> None:
    of_the_release_before(url, [COMPLETED, COMPLETED | {"uncertain": True}, None])

    migrations.upgrade(url)

    assert found(url) == [("Normal", 0.75, False), ("Uncertain", 0.75, False), (None, None, False)]


def test_more_answers_than_are_taken_at_once_all_have_it(url: str) -> None:
    answers = [COMPLETED, None, COMPLETED | {"uncertain": True}] * 400
    of_the_release_before(url, answers)

    migrations.upgrade(url)

    three = [("Normal", 0.75, False), (None, None, False), ("Uncertain", 0.75, False)]
    assert found(url) == three * 400


def test_no_answer_is_looked_at_twice(empty_sqlite_url: str) -> None:
    of_the_release_before(empty_sqlite_url, [COMPLETED] * 2001)
    said: list[tuple[str, Any]] = []

    def listen(_connection: Any, _cursor: Any, statement: str, bound: Any, *_more: Any) -> None:
        if statement.startswith("SELECT") and "FROM inference_result" in statement:
            said.append((statement, bound))

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        migrations.upgrade(empty_sqlite_url)
    finally:
        event.remove(Engine, "before_cursor_execute", listen)

    database = Database(empty_sqlite_url)
    with database.reading() as connection:
        plans = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", bound).all()
            for statement, bound in said
        ]
    database.close()
    assert len(plans) == 4
    for plan in plans[1:]:
        [step] = plan
        assert step.detail.startswith("SEARCH")
        assert "case_id" in step.detail
