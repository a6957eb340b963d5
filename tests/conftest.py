"""Servers that tests share, one of each kind per run, started by the first test that asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import PostgreSQL
from tests.peers.rabbitmq import RabbitMQ

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A private PostgreSQL server."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def empty_postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """The URL of a PostgreSQL database without tables."""
    url = postgresql.create_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A private RabbitMQ node. A test that stops or kills it starts it again."""
    with RabbitMQ() as node:
        yield node


@pytest.fixture
def rabbitmq_vhost_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The AMQP URL of a virtual host of this test's own."""
    url = rabbitmq.create_vhost()
    yield url
    rabbitmq.delete_vhost(url)


@pytest.fixture(scope="session")
def orthanc() -> Iterator[Orthanc]:
    """A private Orthanc, shared: tests tell their studies apart by Study Instance UID."""
    with Orthanc() as archive:
        yield archive


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'countersign.sqlite3'}"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images, outside the project."""
    folder = Path(os.environ.get("COUNTERSIGN_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are absent: COUNTERSIGN_TEST_DATA names no folder ({folder})")
    return folder
