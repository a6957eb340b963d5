from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher

from admin_api import passwords, users
from admin_api.app import make_app
from admin_api.installation import Api
from imaging_store.instances import FileInstanceStore, open_instance_store
from imaging_store.retention import Retention, room_of
from message_contracts.destination import PacsDestination
from service_runtime.access_tokens import AUDIENCE, ISSUER, TokenAuthority
from service_runtime.database import Database
from service_runtime.health import database_check
from service_runtime.http_server import HttpServer, listen
from service_runtime.telemetry import log
from tests.workflow_journey import Ward, a_model

PASSWORD = "correct horse battery staple"
ARCHIVE = PacsDestination(name="ARCHIVE", ae_title="ARCHIVE", host="127.0.0.1", port=104)


class Hospital(Ward):
    """A ward with an API before it, and people who have accounts."""

    def __init__(self, database: Database, store: FileInstanceStore) -> None:
        super().__init__(database, (ARCHIVE,))
        self.store = store
        self.authority = TokenAuthority(secrets.token_bytes(32), ISSUER, AUDIENCE)
        api = Api(
            database=database,
            store=store,
            authority=self.authority,
            desk=self.desk,
            clock=self.tick,
            token_lifetime_s=900,
            retention=Retention(
                timedelta(days=30),
                watermark_bytes=4096,
                reserve_bytes=1024,
                commitment=timedelta(days=365),
            ),
            room=lambda: room_of(store.root),
            checks={"database": database_check(database)},
        )
        self.app = make_app(api)
        self.server = HttpServer(self.app, listen("127.0.0.1", 0))
        self.server.start()
        self.clients: list[httpx.Client] = []

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.close()

    def anybody(self) -> httpx.Client:
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.server.port}", timeout=30, trust_env=False
        )
        self.clients.append(client)
        return client

    def hire(self, role: str, email: str = "") -> httpx.Client:
        """Make an account, and return a client that is logged in with it."""
        email = email or f"{role}@hospital.example"
        users.add(self.database, email, role, f"{role.title()} Person", PASSWORD, self.now)
        return self.logged_in(email)

    def logged_in(self, email: str, password: str = PASSWORD) -> httpx.Client:
        client = self.anybody()
        answer = client.post(
            "/api/v1/auth/login", json={"email": email, "password": password}
        ).raise_for_status()
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return client


@pytest.fixture(autouse=True)
def logged() -> io.StringIO:
    """Log as the process does, to where a test can read it."""
    lines = io.StringIO()
    log.configure("admin_api", stream=lines)
    return lines


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash as argon2id does, with little memory: tests hash more than they guess."""
    cheap = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    monkeypatch.setattr(passwords, "_HASHER", cheap)


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.close()


@pytest.fixture
def hospital(database: Database, tmp_path: Path) -> Iterator[Hospital]:
    hospital = Hospital(database, open_instance_store(f"file:{tmp_path / 'store'}"))
    hospital.register(a_model())
    yield hospital
    hospital.close()
