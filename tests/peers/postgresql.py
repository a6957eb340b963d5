"""A private PostgreSQL server, with a database per test made from a template."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
from psycopg2 import sql
from typing_extensions import override

from tests.peers.processes import (
    LOOPBACK,
    Peer,
    ServerProcess,
    find_program,
    free_port,
    newest,
    private_folder,
    require,
)

USER = "countersign"


class PostgreSQL(Peer):
    """A cluster of its own in a folder of its own.

    Parameters
    ----------
    durable
        Whether commits reach the disk (``fsync``). Off, because a test's data need not
        outlive the machine; on where a test is about durability.
    """

    def __init__(self, *, durable: bool = False) -> None:
        postgres = require(
            find_program("postgres") or newest("/usr/lib/postgresql/*/bin/postgres"),
            "postgres",
            "postgresql",
        ).resolve()
        # PostgreSQL refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        self.port = free_port()
        self.password = secrets.token_urlsafe(12)
        folder = private_folder("postgresql", user)
        self._initdb(postgres.with_name("initdb"), folder, user)
        settings = {
            "port": self.port,
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "64MB",
            "fsync": "on" if durable else "off",
            "full_page_writes": "on" if durable else "off",
            "synchronous_commit": "on" if durable else "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.processes = [
            ServerProcess(
                [postgres, "-D", folder / "cluster", *options],
                log=folder / "server.log",
                user=user,
                # Fast shutdown: do not wait for clients to leave.
                stop_signal=signal.SIGINT,
            )
        ]

    def _initdb(self, initdb: Path, folder: Path, user: str | None) -> None:
        password_file = folder / "password"
        password_file.write_text(self.password)
        subprocess.run(
            [
                *(initdb, "--pgdata", folder / "cluster", "--username", USER),
                *("--pwfile", password_file, "--auth", "scram-sha-256"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            cwd=folder,
        )

    @override
    def start(self) -> None:
        server = self.processes[0]
        server.start()
        server.wait_until_ready(self._answers)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg2.extensions.connection:
        connection = psycopg2.connect(
            host=LOOPBACK, port=self.port, user=USER, password=self.password, dbname="postgres"
        )
        connection.autocommit = True
        return connection

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg2://{USER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def create_database(self, template: str = "template0", *, name: str | None = None) -> str:
        """Create a database, by default an empty one of a new name, and return its URL.

        ``template`` is copied whole; nobody may be connected to it meanwhile.
        """
        name = name or f"test_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, cutting off whoever is still connected to it."""
        name = urlsplit(url).path.removeprefix("/")
        assert re.fullmatch(r"\w+", name)
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement.format(sql.Identifier(name)))
