"""Models as the database knows them: one row per version, written from the model folders.

A registered version never changes: cases, signatures and what lies in a PACS refer to it by name,
version and device UID, and its thresholds, classes, rules and words are part of what was relied on.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from pydantic import ValidationError
from sqlalchemy import delete, select, update

from imaging_store.model_registry import version_key
from imaging_store.schema.results import model as table
from imaging_store.schema.results import refused_model
from inference_worker.model_folder import ModelFolder, RefusedFolder
from message_contracts.inference import ModelReference
from message_contracts.model_description import ModelDescription
from service_runtime.database import Database, Transaction

_LONGEST_REASON = 500

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
    """Enter every folder's model that is not known yet, and note which are refused.

    A folder is set aside when its version is registered already with other weights or another
    description, or its device UID is another version's. A version that is entered again is not
    entered twice.

    Of a name that is new, the newest version is asked from now on. Of one that is known, what was
    asked goes on being asked: another version waits until a person decides for it.
    """
    good: list[ModelFolder] = []
    broken = tuple(refused)
    clashing: list[RefusedFolder] = []
    with database.transaction() as transaction:
        for folder in folders:
            fault = _enter(transaction, folder, at)
            if fault is None:
                good.append(folder)
            else:
                clashing.append(_refused(folder, fault))
        for name in {folder.description.name for folder in good}:
            _have_one_asked(transaction, name, good)
        # What is wrong with such a folder is not wrong with the version that it says it is.
        nameless = [replace(each, model=None) for each in clashing]
        _note_refused(transaction, good, [*broken, *nameless], at)
        for folder in good:
            _let_be_used(transaction, folder.description.name, folder.description.version)
    return Registered(tuple(good), (*broken, *clashing))


def log_registered(registered: Registered) -> None:
    """Log what was registered, and what was set aside with the reason."""
    for each in registered.refused:
        _LOG.error("model.set_aside", path=each.path, reason=each.reason)
    for folder in registered.folders:
        description = folder.description
        _LOG.info(
            "model.registered",
            model=description.name,
            model_version=description.version,
            device_uid=description.device_uid,
            weights_sha256=folder.weights_sha256,
        )


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
            # Until it is found to be the first of its name.
            "retired_at": at,
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
    changed = _changed(known.description, described)
    if changed:
        return (
            f"{', '.join(changed)}: {described.version} is registered with another description; "
            "raise the version"
        )
    if known.description != described.model_dump(mode="json"):
        # The same, as this release writes it down.
        transaction.connection.execute(
            update(table)
            .where(table.c.name == described.name, table.c.version == described.version)
            .values(description=described.model_dump(mode="json"))
        )
    return None


def _changed(registered: object, described: ModelDescription) -> list[str]:
    """Return the fields in which a description differs from the registered one.

    What an earlier release entered need not be a description of this one: that tells nothing.
    """
    try:
        before = ModelDescription.model_validate(registered)
    except ValidationError:
        return []
    return [
        name
        for name in ModelDescription.model_fields
        if getattr(before, name) != getattr(described, name)
    ]


def replace_missing(
    database: Database,
    folders: Iterable[ModelFolder],
    is_kept: Callable[[str], bool],
    at: datetime,
) -> None:
    """Have another version asked where the weights of the one that is are nowhere any more.

    That is so where a model folder was exchanged for that of another version, and the former was
    never kept in the store. What a person has decided stays decided.

    Parameters
    ----------
    is_kept
        Tells of a digest whether these weights can be had.
    """
    with database.reading() as connection:
        asked = connection.execute(select(table).where(table.c.retired_at.is_(None))).all()
    missing = [row for row in asked if not is_kept(row.weights_sha256)]
    if not missing:
        return
    with database.transaction() as transaction:
        connection = transaction.connection
        for row in missing:
            others = [
                each.description.version for each in folders if each.description.name == row.name
            ]
            if not others:
                continue
            newest = max(others, key=version_key)
            for version, retired_at in ((row.version, at), (newest, None)):
                connection.execute(
                    update(table)
                    .where(table.c.name == row.name, table.c.version == version)
                    .values(retired_at=retired_at)
                )
            _LOG.warning("model.replaced", model=row.name, model_version=newest)


def note_loading(
    database: Database,
    reference: ModelReference,
    refused: RefusedFolder | None,
    folder: str,
    at: datetime,
) -> None:
    """Note that a model of this folder could be loaded, or why it could not."""
    with database.transaction() as transaction:
        connection = transaction.connection
        connection.execute(delete(refused_model).where(refused_model.c.folder == folder))
        if refused is None:
            _let_be_used(transaction, reference.name, reference.version)
            connection.execute(
                update(table)
                .where(table.c.name == reference.name, table.c.version == reference.version)
                .values(loaded_at=at)
            )
        else:
            _note_refused(transaction, [], [refused], at)


def _let_be_used(transaction: Transaction, name: str, version: str) -> None:
    """Have what is wrong with other folders of a version stand in the way of it no more."""
    transaction.connection.execute(
        update(refused_model)
        .where(refused_model.c.model_name == name, refused_model.c.model_version == version)
        .values(model_name=None, model_version=None)
    )


def _refused(folder: ModelFolder, reason: str) -> RefusedFolder:
    named = reason if reason.startswith(folder.path.name) else f"{folder.path.name}: {reason}"
    described = folder.description
    return RefusedFolder(folder.path, named, (described.name, described.version))


def _note_refused(
    transaction: Transaction,
    good: Iterable[ModelFolder],
    refused: Iterable[RefusedFolder],
    at: datetime,
) -> None:
    settled = [*(each.path.name for each in good), *(each.path.name for each in refused)]
    connection = transaction.connection
    connection.execute(delete(refused_model).where(refused_model.c.folder.in_(settled)))
    for each in refused:
        name, version = each.model or (None, None)
        connection.execute(
            transaction.database.insert_new(refused_model),
            {
                "folder": each.path.name,
                "model_name": name,
                "model_version": version,
                "reason": each.reason[:_LONGEST_REASON],
                "refused_at": at,
            },
        )


def _have_one_asked(transaction: Transaction, name: str, folders: Iterable[ModelFolder]) -> None:
    """Of a name of which no version is asked yet, have the newest asked."""
    of_name = table.c.name == name
    connection = transaction.connection
    asked = select(table.c.version).where(of_name, table.c.retired_at.is_(None))
    if connection.execute(asked).first() is not None:
        return
    installed = [each.description.version for each in folders if each.description.name == name]
    newest = max(installed, key=version_key)
    connection.execute(
        update(table).where(of_name, table.c.version == newest).values(retired_at=None)
    )
