"""Models as the database knows them: one row per version, written from the model folders.

Weights and device UID of a registered version never change: cases and what lies in a PACS refer to
it by name, version and device UID. Words and rules of its description may.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import select, update

from imaging_store.schema.results import model as table
from inference_worker.model_folder import ModelFolder, RefusedFolder
from service_runtime.database import Database, Transaction

_LOG = structlog.get_logger()


@dataclass(frozen=True)
class Registered:
    """The folders whose models may be asked, and those that were set aside."""

    folders: tuple[ModelFolder, ...]
    refused: tuple[RefusedFolder, ...]


def register(
    database: Database,
    folders: Iterable[ModelFolder],
    refused: Iterable[RefusedFolder],
    at: datetime,
) -> Registered:
    """Enter every folder's model that is not known yet; of each name, the newest is in use.

    A folder is set aside when its version is registered already with other weights, or its device
    UID is another version's. A version that is entered again is not entered twice. Names without
    a folder stay as they are: their studies fail with a reason that a person sees.
    """
    good, set_aside = [], list(refused)
    with database.transaction() as transaction:
        for folder in folders:
            fault = _enter(transaction, folder, at)
            if fault is None:
                good.append(folder)
            else:
                set_aside.append(RefusedFolder(folder.path, f"{folder.path.name}: {fault}"))
        for name in {folder.description.name for folder in good}:
            _put_newest_in_use(transaction, name, good, at)
    for each in set_aside:
        _LOG.error("model.set_aside", path=each.path, reason=each.reason)
    for folder in good:
        description = folder.description
        _LOG.info(
            "model.registered",
            model=description.name,
            model_version=description.version,
            device_uid=description.device_uid,
            weights_sha256=folder.weights_sha256,
        )
    return Registered(tuple(good), tuple(set_aside))


def _enter(transaction: Transaction, folder: ModelFolder, at: datetime) -> str | None:
    """Enter one model; return what stands in the way."""
    described = folder.description
    transaction.connection.execute(
        transaction.database.insert_new(table),
        {
            "name": described.name,
            "version": described.version,
            "device_uid": described.device_uid,
            "weights_sha256": folder.weights_sha256,
            "description": described.model_dump(mode="json"),
            "registered_at": at,
        },
    )
    known = transaction.connection.execute(
        select(table).where(table.c.name == described.name, table.c.version == described.version)
    ).first()
    if known is None:
        return "device_uid: it is that of another model or version; give each version its own"
    if known.weights_sha256 != folder.weights_sha256:
        return f"version: {described.version} is registered with other weights; raise it"
    if known.device_uid != described.device_uid:
        return f"device_uid: {described.version} is registered with another one; raise the version"
    # As JSON: what an earlier release entered need not be a description of this one.
    if known.description != described.model_dump(mode="json"):
        transaction.connection.execute(
            update(table)
            .where(table.c.name == described.name, table.c.version == described.version)
            .values(description=described.model_dump(mode="json"))
        )
    return None


def _put_newest_in_use(
    transaction: Transaction, name: str, folders: Iterable[ModelFolder], at: datetime
) -> None:
    installed = [each.description for each in folders if each.description.name == name]
    newest = max(installed, key=lambda described: version_key(described.version)).version
    of_name = table.c.name == name
    transaction.connection.execute(
        update(table).where(of_name, table.c.version == newest).values(retired_at=None)
    )
    transaction.connection.execute(
        update(table)
        .where(of_name, table.c.version != newest, table.c.retired_at.is_(None))
        .values(retired_at=at)
    )


def version_key(version: str) -> tuple[int, ...]:
    """Return what sorts versions ``major.minor.patch`` by age."""
    return tuple(int(number) for number in version.split("."))
