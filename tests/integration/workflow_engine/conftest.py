from __future__ import annotations

from collections.abc import Iterator

import pytest

from message_contracts.destination import PacsDestination
from service_runtime.database import Database
from tests.integration.workflow_engine.signed_case import UID
from tests.workflow_journey import Ward, a_model


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.close()


@pytest.fixture
def destinations() -> tuple[PacsDestination, ...]:
    """Give where results go: nowhere. A module may have its own."""
    return ()


@pytest.fixture
def ward(database: Database, destinations: tuple[PacsDestination, ...]) -> Ward:
    ward = Ward(database, destinations)
    ward.register(a_model())
    return ward


@pytest.fixture
def analyzed(ward: Ward) -> Ward:
    """Have a case that a model has read, and that waits for its doctor."""
    ward.analyzed(UID)
    return ward
