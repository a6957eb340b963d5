"""Servers that tests share, one of each kind per run, started by the first test that asks."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import PostgreSQL
from tests.peers.rabbitmq import RabbitMQ

CHECKOUT = Path(__file__).parent.parent


def pytest_configure() -> None:
    """Choose the seed of a run's random choices, once for all of its processes; be patient."""
    os.environ.setdefault("COUNTERSIGN_TEST_SEED", str(secrets.randbelow(1_000_000)))
    # On a busy machine any example may take long; a test that hangs ends by its time-out.
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")


def pytest_report_header() -> str:
    """Print the seed, which repeats the choices."""
    return f"COUNTERSIGN_TEST_SEED={os.environ['COUNTERSIGN_TEST_SEED']}"


def create_tables(url: str) -> None:
    """Lay down every table in an empty database, as an installation does, and leave it."""
    # Imported here: unit tests have no database and need not load SQLAlchemy.
    importlib.import_module("imaging_store.migrations").upgrade(url)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Start a private PostgreSQL server."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def empty_postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """Make a PostgreSQL database without tables and give its URL."""
    url = postgresql.create_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture(scope="session")
def postgresql_template(postgresql: PostgreSQL) -> str:
    """Name a database that has the tables and nobody connected."""
    name = "tables"
    create_tables(postgresql.create_database(name=name))
    return name


@pytest.fixture
def postgresql_database_url(postgresql: PostgreSQL, postgresql_template: str) -> Iterator[str]:
    """Make a PostgreSQL database of this test's own, with the tables, and give its URL."""
    url = postgresql.create_database(postgresql_template)
    yield url
    postgresql.drop_database(url)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """Start a private RabbitMQ node. A test that stops or kills it starts it again."""
    with RabbitMQ() as node:
        yield node


@pytest.fixture
def rabbitmq_vhost_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """Make a virtual host of this test's own and give its AMQP URL."""
    url = rabbitmq.create_vhost()
    yield url
    rabbitmq.delete_vhost(url)


@pytest.fixture(scope="session")
def orthanc() -> Iterator[Orthanc]:
    """Start a private Orthanc: tests tell their studies apart by Study Instance UID."""
    with Orthanc() as archive:
        yield archive


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """Give the URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'countersign.sqlite3'}"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a SQLite file that has the tables."""
    file = tmp_path_factory.mktemp("sqlite") / "tables.sqlite3"
    create_tables(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, empty_sqlite_url: str) -> str:
    """Make a SQLite database of this test's own, with the tables, and give its URL."""
    shutil.copyfile(sqlite_template, empty_sqlite_url.removeprefix("sqlite:///"))
    return empty_sqlite_url


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Find the folder of real images, outside the project."""
    folder = Path(os.environ.get("COUNTERSIGN_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are absent: COUNTERSIGN_TEST_DATA names no folder ({folder})")
    return folder
