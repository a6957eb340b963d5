from __future__ import annotations

from collections.abc import Iterator

import pytest

from service_runtime.database import Database
from tests.workflow_journey import Ward, a_model


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.close()


@pytest.fixture
def ward(database: Database) -> Ward:
    ward = Ward(database)
    ward.register(a_model())
    return ward
