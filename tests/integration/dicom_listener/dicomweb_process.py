"""DICOMweb as a process, its users, and requests as viewers and gateways make them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import httpx
from sqlalchemy import create_engine, insert, select

from imaging_store.instances import FileInstanceStore
from imaging_store.schema.administration import users
from service_runtime.access_tokens import AUDIENCE, ISSUER, TokenAuthority
from service_runtime.token_key import kept_key
from tests.peers.processes import LOOPBACK, ServerProcess, accepts_connections, free_port

CHECKOUT = Path(__file__).parents[3]
BOUNDARY = "countersign-test"
POSTED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


class DicomWebProcess:
    """``python -m dicom_listener.dicomweb`` on a folder and a database of its own."""

    def __init__(self, folder: Path, database_url: str, **settings: object) -> None:
        self.folder = folder
        self.port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT),
            "COUNTERSIGN_DATA_DIR": str(folder),
            "COUNTERSIGN_DATABASE_URL": database_url,
            "COUNTERSIGN_DICOMWEB_PORT": str(self.port),
            "COUNTERSIGN_STORE_RESERVE_MIB": "0",
        }
        environment |= {
            f"COUNTERSIGN_{name.upper()}": str(value) for name, value in settings.items()
        }
        folder.mkdir(exist_ok=True, parents=True)
        self.process = ServerProcess(
            [sys.executable, "-m", "dicom_listener.dicomweb"],
            log=folder / "dicomweb.log",
            environment=environment,
        )
        self.store = FileInstanceStore(folder / "instances")
        self.engine = create_engine(database_url)
        self.authority = TokenAuthority(kept_key(folder), ISSUER, AUDIENCE)
        self.clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        self.process.kill()
        self.engine.dispose()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.process.start()
        self.process.wait_until_ready(lambda: accepts_connections(self.port))

    @property
    def url(self) -> str:
        """Of the service."""
        return f"http://{LOOPBACK}:{self.port}/dicom-web"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "dicomweb.log").read_text()

    def token(self, role: str) -> str:
        """Make an account, and return a token of it."""
        user_id = uuid4()
        row = {
            "id": user_id,
            "email": f"{user_id}@hospital.example",
            "printed_name": "Somebody",
            "role": role,
            "password_hash": "",
            "created_at": datetime.now(UTC),
            "token_generation": 0,
            "failed_attempts": 0,
        }
        self.execute(insert(users), row)
        return self.authority.issue(str(user_id), role, datetime.now(UTC), timedelta(hours=1))

    def client(self, role: str = "admin") -> httpx.Client:
        """Return a client that is logged in."""
        client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token(role)}"},
            timeout=60,
            trust_env=False,
        )
        self.clients.append(client)
        return client

    def execute(self, statement: Any, values: Any = None) -> None:
        """Write what another service would have written."""
        with self.engine.begin() as connection:
            connection.execute(statement, values)

    def rows(self, table: Any) -> list[Any]:
        """All rows of a table."""
        with self.engine.connect() as connection:
            return list(connection.execute(select(table)).all())

    def disable(self, token: str) -> None:
        """Shut the account of a token."""
        user_id = UUID(self.authority.verify(token, datetime.now(UTC)).user_id)
        change = users.update().where(users.c.id == user_id)
        self.execute(change.values(disabled_at=datetime.now(UTC)))


def body_of(parts: Sequence[bytes]) -> bytes:
    """Return the body of a store request."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def post(client: httpx.Client, *parts: bytes, path: str = "/studies") -> httpx.Response:
    """Store files."""
    return client.post(path, content=body_of(parts), headers={"Content-Type": POSTED})


def parts_of(answer: httpx.Response) -> list[tuple[dict[str, str], bytes]]:
    """Return heads and contents of the parts of an answer."""
    content_type = answer.headers["content-type"]
    boundary = content_type.partition("boundary=")[2].strip('"')
    pieces = answer.content.split(f"\r\n--{boundary}".encode())
    assert pieces[0] == b""
    assert pieces[-1].startswith(b"--")
    found = []
    for piece in pieces[1:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode().split("\r\n")]
        found.append(({name.lower(): value for name, _, value in lines}, content))
    return found
