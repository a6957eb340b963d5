"""How far each destination of a case has been served. The one writer of its table."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, insert, select, update
from sqlalchemy import case as case_of

from imaging_store.schema.workflow import destination_delivery
from message_contracts.case import DeliveryState
from message_contracts.delivery import request_id
from workflow_engine.case import Case

PACS = "PACS"
"""The kind of a destination that results are attached to."""

_COLUMNS = destination_delivery.c


@dataclass(frozen=True)
class Delivery:
    """What a destination was asked to take, and how far that is."""

    destination: str
    kind: str
    case_version: int
    requested_before: int
    """How often the same was asked for before; each time is a message of its own."""
    state: DeliveryState
    reason: str | None
    """Why it is not what was wanted."""
    rejected_at: datetime | None
    """When it was withdrawn, and a rejection note asked for where it had gone."""

    @property
    def is_withdrawn(self) -> bool:
        """Whether it does not go, or is not to be used; a PACS that heard so stays as it is."""
        return self.rejected_at is not None and self.state is not DeliveryState.REJECTED


def of_version(connection: Connection, case: Case) -> tuple[Delivery, ...]:
    """Return the deliveries of the version under way."""
    return _found(connection, _COLUMNS.case_id == case.id, _COLUMNS.case_version == case.version)


def pending(connection: Connection, case: Case) -> tuple[Delivery, ...]:
    """Return what has been neither delivered nor given up, of every version."""
    return _found(connection, _COLUMNS.case_id == case.id, _COLUMNS.state == DeliveryState.PENDING)


def find(
    connection: Connection, case_id: UUID, case_version: int, destination: str
) -> Delivery | None:
    """Return a delivery; ``None`` where nothing was ever to go there."""
    found = _found(connection, _is(case_id, case_version, destination))
    return found[0] if found else None


def message_id(message_type: str, case_id: UUID, delivery: Delivery) -> UUID:
    """Return the id of the message of this type about a delivery; of each request another."""
    return request_id(
        message_type,
        case_id,
        delivery.case_version,
        delivery.destination,
        delivery.requested_before,
    )


def request(
    connection: Connection, case: Case, destination: str, kind: str, at: datetime
) -> Delivery:
    """Note that a destination is to be served, perhaps not for the first time."""
    again = connection.execute(
        update(destination_delivery)
        .where(_is(case.id, case.version, destination))
        .values(
            requested_before=_COLUMNS.requested_before + 1,
            state=DeliveryState.PENDING,
            reason=None,
            rejected_at=None,
            changed_at=at,
        )
        .returning(_COLUMNS.requested_before)
    ).scalar()
    if again is None:
        connection.execute(
            insert(destination_delivery),
            {
                "case_id": case.id,
                "case_version": case.version,
                "destination": destination,
                "kind": kind,
                "requested_before": 0,
                "state": DeliveryState.PENDING,
                "changed_at": at,
            },
        )
    return Delivery(
        destination,
        kind,
        case.version,
        again or 0,
        DeliveryState.PENDING,
        reason=None,
        rejected_at=None,
    )


def settle(
    connection: Connection,
    case_id: UUID,
    delivery: Delivery,
    became: tuple[DeliveryState, str | None],
    at: datetime,
) -> None:
    """Note what became of a delivery, with the reason where it is not what was wanted."""
    state, reason = became
    connection.execute(
        update(destination_delivery)
        .where(_is(case_id, delivery.case_version, delivery.destination))
        .values(state=state, reason=reason, changed_at=at)
    )


def withdraw(
    connection: Connection, case: Case, version: int, reason: str, at: datetime
) -> tuple[Delivery, ...]:
    """Note that what PACS were asked to take of a version is not to be used.

    Return the deliveries where that is new. One that has failed goes on telling why.
    """
    new = (
        _COLUMNS.case_id == case.id,
        _COLUMNS.case_version == version,
        _COLUMNS.kind == PACS,
        _COLUMNS.rejected_at.is_(None),
    )
    found = _found(connection, *new)
    connection.execute(
        update(destination_delivery)
        .where(*new)
        .values(
            rejected_at=at,
            reason=case_of((_COLUMNS.state == DeliveryState.FAILED, _COLUMNS.reason), else_=reason),
        )
    )
    return found


def _found(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[Delivery, ...]:
    rows = connection.execute(
        select(destination_delivery).where(*conditions).order_by(_COLUMNS.destination)
    )
    return tuple(
        Delivery(
            row.destination,
            row.kind,
            row.case_version,
            row.requested_before,
            DeliveryState(row.state),
            row.reason,
            row.rejected_at,
        )
        for row in rows
    )


def _is(case_id: UUID, case_version: int, destination: str) -> ColumnElement[bool]:
    return and_(
        _COLUMNS.case_id == case_id,
        _COLUMNS.case_version == case_version,
        _COLUMNS.destination == destination,
    )
