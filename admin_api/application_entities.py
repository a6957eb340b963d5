"""Who may send to us, and what holds for them. The one writer of ``application_entity``."""

from datetime import datetime
from http import HTTPStatus
from ipaddress import ip_network
from typing import Annotated, Self

import structlog
from fastapi import APIRouter, Path, Response
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from sqlalchemy import Row, delete, select, update

from admin_api.identity import SignedIn, SignedInAdmin
from admin_api.installation import ApiDependency
from imaging_store.retention import Retention
from imaging_store.schema.administration import application_entity
from message_contracts.inference import Urgency
from service_runtime.database import Database
from service_runtime.errors import PermanentError
from service_runtime.problem_details import Problem
from service_runtime.settings import TimeZone

router = APIRouter(prefix="/application-entities", tags=["application entities"])
log = structlog.get_logger()

_LONGEST_QUIET_PERIOD_S = 86_400
_MOST_ASSOCIATIONS = 4096
_MOST_NETWORKS = 64


class InvalidApplicationEntity(PermanentError):
    """A field of an entry cannot be taken; the reason names it and quotes nothing."""


class NoSuchApplicationEntity(PermanentError):
    """The AE title is not listed."""


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError(
            "not an address, or a network in CIDR notation without host bits, such as 10.1.2.0/24"
        ) from None


CallingAETitle = Annotated[
    str,
    StringConstraints(
        pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?$"
    ),
]
"""VR AE (PS3.5 §6.2) without the spaces around it, which mean nothing."""


class Entry(BaseModel):
    """What holds for the associations of one calling AE title; from the next one on."""

    model_config = ConfigDict(extra="forbid")

    networks: Annotated[
        tuple[Annotated[str, Field(max_length=64), AfterValidator(_network)], ...],
        Field(max_length=_MOST_NETWORKS),
    ] = ()
    """Addresses and networks that it may call from; none: from anywhere."""
    quiet_period_s: Annotated[float, Field(gt=0, le=_LONGEST_QUIET_PERIOD_S)] | None = None
    """Seconds without a new instance that complete a study; none: the installation's."""
    default_issuer_of_patient_id: (
        Annotated[str, StringConstraints(pattern=r"^[^\\\x00-\x1f\x7f]{1,64}$")] | None
    ) = None
    """Of patients whose instances name no issuer (0010,0021); none: the installation's."""
    time_zone: Annotated[TimeZone, Field(max_length=64)] | None = None
    """IANA zone of times that name no offset; none: the installation's."""
    urgency: Urgency = Urgency.ROUTINE
    """Which lane a model reads its studies in."""
    max_associations: Annotated[int, Field(ge=1, le=_MOST_ASSOCIATIONS)] | None = None
    """At one time; none: as many as the installation takes."""
    commitment: bool = False
    """Whether we commit to store what it asks us to (PS3.4 Annex J)."""
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,253}$")] | None = None
    """Where it hears of commitments; none: only on the association it asked on."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: bool = False
    """Whether it hears of them by DICOM TLS."""

    @model_validator(mode="after")
    def _host_and_port_come_together(self) -> Self:
        if (self.host is None) != (self.port is None):
            raise ValueError("host and port: give both or neither")
        return self


class ApplicationEntity(Entry):
    """A calling AE title that may send, with who last changed what holds for it."""

    ae_title: CallingAETitle
    changed_at: datetime
    changed_by: str


def checked(**fields: object) -> Entry:
    """Return an entry of these fields.

    Raises
    ------
    InvalidApplicationEntity
        A field cannot be taken; all that are at fault are named, one line each.
    """
    try:
        return Entry.model_validate(fields)
    except ValidationError as error:
        lines = []
        for fault in error.errors(include_input=False, include_url=False):
            reason = fault["msg"].removeprefix("Value error, ")
            lines.append(": ".join([*(str(part) for part in fault["loc"][:1]), reason]))
        raise InvalidApplicationEntity("\n".join(lines)) from None


def require_a_commitment_period(entry: Entry, retention: Retention) -> None:
    """Refuse a right to ask us for commitments that mean nothing yet.

    Raises
    ------
    InvalidApplicationEntity
        The installation does not say how long what we commit to is kept.
    """
    if entry.commitment and retention.commitment is None:
        raise InvalidApplicationEntity(
            "commitment: set COUNTERSIGN_COMMITMENT_DAYS first, which says how long what we "
            "commit to is kept"
        )


def put(
    database: Database, ae_title: str, entry: Entry, who: str, now: datetime
) -> ApplicationEntity:
    """List an AE title, or change what holds for it.

    Raises
    ------
    InvalidApplicationEntity
        The AE title is none.
    """
    try:
        listed = ApplicationEntity(
            ae_title=ae_title.strip(" "), changed_at=now, changed_by=who, **dict(entry)
        )
    except ValidationError:
        raise InvalidApplicationEntity(
            "ae_title: 1 to 16 characters of ASCII, no backslash, not only spaces"
        ) from None
    row = listed.model_dump() | {"networks": list(listed.networks), "urgency": entry.urgency.value}
    with database.transaction() as transaction:
        connection = transaction.connection
        connection.execute(database.insert_new(application_entity), row)
        connection.execute(
            update(application_entity)
            .where(application_entity.c.ae_title == listed.ae_title)
            .values(row)
        )
    return listed


def remove(database: Database, ae_title: str) -> None:
    """Strike an AE title off the list; where it was the last, loopback may send again.

    Raises
    ------
    NoSuchApplicationEntity
        It is not listed.
    """
    with database.transaction() as transaction:
        removed = transaction.connection.execute(
            delete(application_entity).where(application_entity.c.ae_title == ae_title.strip(" "))
        )
    if removed.rowcount != 1:
        raise NoSuchApplicationEntity("ae_title: not listed")


def list_all(database: Database) -> list[ApplicationEntity]:
    """Return every entry, by AE title."""
    with database.reading() as connection:
        rows = connection.execute(
            select(application_entity).order_by(application_entity.c.ae_title)
        ).all()
    return [_listed(row) for row in rows]


def _listed(row: Row[tuple[object, ...]]) -> ApplicationEntity:
    # As it was checked when it was written: what has since become invalid is shown all the same.
    fields = row._asdict()
    fields["networks"] = tuple(fields["networks"])
    fields["urgency"] = Urgency(fields["urgency"])
    return ApplicationEntity.model_construct(**fields)


AETitlePath = Annotated[CallingAETitle, Path(description="The calling AE title.")]


@router.get("")
def list_application_entities(api: ApiDependency, _user: SignedIn) -> list[ApplicationEntity]:
    """Get who may send; where nobody is listed, anyone may from loopback and nobody else."""
    return list_all(api.database)


@router.put("/{ae_title:path}")
def put_application_entity(
    ae_title: AETitlePath, entry: Entry, api: ApiDependency, user: SignedInAdmin
) -> ApplicationEntity:
    """List an AE title, or change what holds for it: from its next association on."""
    try:
        require_a_commitment_period(entry, api.retention)
    except InvalidApplicationEntity as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "no-commitment-period", str(error)) from None
    listed = put(api.database, ae_title, entry, user.printed_name, api.clock())
    log.info("application_entity.listed", calling_ae_title=ae_title, user_id=user.id)
    return listed


@router.delete("/{ae_title:path}", status_code=HTTPStatus.NO_CONTENT, response_class=Response)
def remove_application_entity(
    ae_title: AETitlePath, api: ApiDependency, user: SignedInAdmin
) -> None:
    """Strike an AE title off the list; associations that it has open go on."""
    try:
        remove(api.database, ae_title)
    except NoSuchApplicationEntity:
        raise Problem(
            HTTPStatus.NOT_FOUND, "no-such-application-entity", "this AE title is not listed"
        ) from None
    log.info("application_entity.removed", calling_ae_title=ae_title, user_id=user.id)
