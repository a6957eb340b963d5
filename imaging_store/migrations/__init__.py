"""The history of the tables: one line of Alembic revisions for SQLite and PostgreSQL alike.

A revision writes out what it makes; it imports no table, because tables move on and it does not.
"""

import importlib
import pkgutil
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, text

import imaging_store.schema
import service_runtime
from service_runtime.database import Database, Transaction, metadata

# Any number, as long as everybody who upgrades waits for the same one.
_UPGRADE_LOCK = 7_305_166_131


def upgrade(database_url: str) -> str:
    """Bring a database, new or of an earlier release, to this release; return its revision.

    All of it happens in one transaction, and whoever upgrades at the same time waits: services of
    one installation may all do it when they start.
    """
    database = Database(database_url)
    try:
        with database.transaction() as transaction:
            if database.dialect == "postgresql":
                transaction.connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK}
                )
            command.upgrade(_config(transaction), "head")
            return _revision(transaction)
    finally:
        database.close()


def newest_revision() -> str:
    """Return the revision that this release's code is written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        reason = "the release has no migrations"
        raise RuntimeError(reason)
    return head


def all_tables() -> MetaData:
    """Return the metadata with every table of the product in it."""
    for package in (imaging_store.schema, service_runtime):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if package is imaging_store.schema or module.name.rpartition(".")[2] in _TABLES:
                importlib.import_module(module.name)
    return metadata


_TABLES = frozenset({"tables", "heartbeat"})


def _config(transaction: Transaction | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = transaction.connection if transaction else None
    return config


def _revision(transaction: Transaction) -> str:
    revision = MigrationContext.configure(transaction.connection).get_current_revision()
    return revision or ""
