"""PACS that results go to: how each is served, and its pause. The one writer of the pauses."""

from datetime import UTC, datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Path
from pydantic import BaseModel
from sqlalchemy import Connection, delete, func, select

from admin_api import waiting
from admin_api.identity import SignedIn, SignedInAdmin
from admin_api.installation import ApiDependency
from admin_api.sign_off import NotesNeeded
from imaging_store.schema.administration import destination_pause
from imaging_store.schema.delivery import destination_contact
from message_contracts import topology
from message_contracts.case import Release
from message_contracts.destination import DimsePriority, PacsDestination
from service_runtime.database import Database
from service_runtime.errors import PermanentError
from service_runtime.messaging.hastening import hasten_queue
from service_runtime.messaging.tables import dead_letter, delivery, message
from service_runtime.problem_details import Problem

router = APIRouter(prefix="/destinations", tags=["destinations"])
log = structlog.get_logger()


class NoSuchDestination(PermanentError):
    """The name is not in COUNTERSIGN_PACS_DESTINATIONS."""


class Why(BaseModel):
    """Why somebody does a thing; kept with it."""

    why: NotesNeeded


class Pause(BaseModel):
    """Nothing is sent until somebody lets it go on."""

    paused_at: datetime
    paused_by: str
    why: str


class Destination(BaseModel):
    """A PACS that results go to, and how it is served."""

    name: str
    ae_title: str
    host: str
    port: int
    tls: bool
    release: Release
    priority: DimsePriority
    window: str | None
    """When it may be sent to, in the site's time zone; none: at any time."""
    commitment: bool
    paused: Pause | None
    waiting: int
    """Requests that have not been carried out yet."""
    waiting_since: datetime | None
    """When the oldest of them was made."""
    next_try_at: datetime | None
    """No earlier; while the destination is paused or its window closed, later."""
    waiting_for: str | None
    """What the last try, or look, at the oldest that was tried found."""
    dead_letters: int
    """Requests that were given up, and nobody has decided about."""
    succeeded_at: datetime | None
    """When everything of a batch was last taken."""
    failed_at: datetime | None
    failure: str | None


def list_all(database: Database, destinations: tuple[PacsDestination, ...]) -> list[Destination]:
    """Return the destinations of the settings, in their order."""
    with database.reading() as connection:
        return [_destination(connection, each) for each in destinations]


def pause(database: Database, name: str, who: str, why: str, now: datetime) -> None:
    """Have nothing sent to a destination; paused again, it stays as it was."""
    row = {"destination": name, "paused_at": now, "paused_by": who, "why": why}
    with database.transaction() as transaction:
        transaction.connection.execute(database.insert_new(destination_pause), row)


def resume(database: Database, name: str) -> None:
    """Let a destination be sent to again; what waits to be tried again is tried now."""
    with database.transaction() as transaction:
        transaction.connection.execute(
            delete(destination_pause).where(destination_pause.c.destination == name)
        )
        hasten_queue(transaction, topology.branch_of(topology.ATTACHMENT, name))


def named(destinations: tuple[PacsDestination, ...], name: str) -> PacsDestination:
    """Return a destination of the settings.

    Raises
    ------
    NoSuchDestination
        There is none of this name.
    """
    for each in destinations:
        if each.name == name:
            return each
    raise NoSuchDestination("name: not in COUNTERSIGN_PACS_DESTINATIONS")


def _destination(connection: Connection, configured: PacsDestination) -> Destination:
    branch = topology.branch_of(topology.ATTACHMENT, configured.name)
    queued = select(delivery).join(message, message.c.id == delivery.c.message_id)
    queued = queued.where(delivery.c.queue == branch)
    waiting_count, since, due_at = connection.execute(
        queued.with_only_columns(
            func.count(), func.min(message.c.created_at), func.min(delivery.c.due_at)
        )
    ).one()
    last_error = connection.execute(
        queued.with_only_columns(delivery.c.last_error)
        .where(delivery.c.last_error.is_not(None))
        .order_by(message.c.created_at)
        .limit(1)
    ).scalar()
    dead = connection.execute(
        select(func.count()).where(
            dead_letter.c.queue == branch, dead_letter.c.resolved_at.is_(None)
        )
    ).scalar_one()
    paused = connection.execute(
        select(destination_pause).where(destination_pause.c.destination == configured.name)
    ).first()
    contact = connection.execute(
        select(destination_contact).where(destination_contact.c.destination == configured.name)
    ).first()
    return Destination(
        **configured.model_dump(include=_AS_CONFIGURED),
        paused=None if paused is None else Pause.model_validate(paused._asdict()),
        waiting=waiting_count,
        waiting_since=since,
        next_try_at=None if due_at is None else datetime.fromtimestamp(due_at, UTC),
        waiting_for=last_error,
        dead_letters=dead,
        succeeded_at=None if contact is None else contact.succeeded_at,
        failed_at=None if contact is None else contact.failed_at,
        failure=None if contact is None else contact.failure,
    )


_AS_CONFIGURED = {
    *("name", "ae_title", "host", "port", "tls", "release", "priority", "window", "commitment"),
}

NamePath = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]


@router.get("")
def list_destinations(api: ApiDependency, _user: SignedIn) -> list[Destination]:
    """Get the PACS that results go to, and how each is served."""
    return list_all(api.database, tuple(api.desk.destinations))


@router.get("/{name}/waiting")
def list_waiting(
    name: NamePath, api: ApiDependency, _user: SignedIn
) -> list[waiting.WaitingRequest]:
    """Get what waits for a destination, the first to be tried first; at most a hundred."""
    _named(api, name)
    with api.database.reading() as connection:
        return waiting.of_destination(connection, name)


@router.post("/{name}/pause")
def pause_destination(
    name: NamePath, words: Why, api: ApiDependency, user: SignedInAdmin
) -> Destination:
    """Have nothing sent to a destination until it is let go on; what comes for it waits."""
    configured = _named(api, name)
    pause(api.database, name, user.printed_name, words.why, api.clock())
    log.info("destination.paused", destination=name, user_id=user.id)
    return _shown(api.database, configured)


@router.post("/{name}/resume")
def resume_destination(name: NamePath, api: ApiDependency, user: SignedInAdmin) -> Destination:
    """Let a destination be sent to again; what waited goes at once."""
    configured = _named(api, name)
    resume(api.database, name)
    log.info("destination.resumed", destination=name, user_id=user.id)
    return _shown(api.database, configured)


def _named(api: ApiDependency, name: str) -> PacsDestination:
    try:
        return named(tuple(api.desk.destinations), name)
    except NoSuchDestination as error:
        raise Problem(404, "no-such-destination", str(error)) from None


def _shown(database: Database, configured: PacsDestination) -> Destination:
    with database.reading() as connection:
        return _destination(connection, configured)
