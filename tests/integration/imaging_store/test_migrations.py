from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from imaging_store.migrations import all_tables, newest_revision, upgrade

EMPTY_DATABASES = ("empty_sqlite_url", "empty_postgresql_url")


@pytest.fixture(params=EMPTY_DATABASES)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    upgrade(url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_an_empty_database_comes_to_the_newest_revision(url: str) -> None:
    reached = upgrade(url)

    assert reached == newest_revision()


def test_upgrading_again_changes_nothing(url: str) -> None:
    upgrade(url)

    assert upgrade(url) == newest_revision()


def test_services_that_start_together_may_all_upgrade(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        reached = list(pool.map(upgrade, [url] * 4))

    assert reached == [newest_revision()] * 4


def test_the_migrated_tables_are_those_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        differences = compare_metadata(context, all_tables())

    assert differences == []


def test_the_migrated_tables_have_the_checks_of_the_code(engine: Engine) -> None:
    # Alembic does not compare check constraints.
    inspector = inspect(engine)

    checks = {
        check["name"]
        for table in inspector.get_table_names()
        for check in inspector.get_check_constraints(table)
    }

    assert checks == {"ck_cases_version_counts_from_one", "ck_history_head_only_one"}


@pytest.mark.parametrize(
    "change", ["UPDATE history SET actor = 'somebody else'", "DELETE FROM history"]
)
def test_the_database_refuses_to_change_history(engine: Engine, change: str) -> None:
    with engine.begin() as connection:
        case = "'00000000000000000000000000000001'"
        connection.execute(
            text(
                "INSERT INTO cases (id, study_instance_uid, status, version, revision, on_hold,"
                f" opened_at, changed_at) VALUES ({case}, '1.2.3', 'RECEIVING', 1, 1, false,"
                " '2026-01-01 00:00:00', '2026-01-01 00:00:00')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO history (sequence, case_id, case_version, at, actor, trigger,"
                " to_status, details, previous_sha256, sha256)"
                f" VALUES (1, {case}, 1, '2026-01-01 00:00:00', 'system', 'opened', 'RECEIVING',"
                " '{}', '', '')"
            )
        )

    with pytest.raises(DBAPIError, match="history is append-only"), engine.begin() as connection:
        connection.execute(text(change))


def test_postgresql_refuses_to_empty_history(empty_postgresql_url: str) -> None:
    upgrade(empty_postgresql_url)
    engine = create_engine(empty_postgresql_url)

    with pytest.raises(DBAPIError, match="history is append-only"), engine.begin() as connection:
        connection.execute(text("TRUNCATE history"))

    engine.dispose()
