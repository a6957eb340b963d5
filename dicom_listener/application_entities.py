"""Looks calling AE titles up in the registry, each time anew, so that a change holds at once.

An association costs one or two short reads for it, and an instance nothing.
"""

from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from sqlalchemy import Row, bindparam, literal, select

from dicom_listener.peers import Entry, Listed
from imaging_store.schema.administration import application_entity
from message_contracts.inference import Urgency
from service_runtime.database import Database

log = structlog.get_logger()

_ENTRY = select(application_entity).where(
    application_entity.c.ae_title == bindparam("calling_ae_title")
)
_ANYBODY = select(literal(1)).select_from(application_entity).limit(1)


def look_up(database: Database, calling_ae_title: str) -> Listed:
    """Return what is listed of a calling AE title now.

    Raises
    ------
    DatabaseUnavailable
        It cannot be read.
    """
    with database.reading() as connection:
        row = connection.execute(_ENTRY, {"calling_ae_title": calling_ae_title}).one_or_none()
        if row is not None:
            return Listed(_entry(row), is_anybody=True)
        return Listed(None, is_anybody=connection.execute(_ANYBODY).first() is not None)


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        networks=tuple(ip_network(network) for network in row.networks),
        quiet_period=None if row.quiet_period_s is None else timedelta(seconds=row.quiet_period_s),
        default_issuer_of_patient_id=row.default_issuer_of_patient_id,
        zone=_zone(row.ae_title, row.time_zone),
        urgency=Urgency(row.urgency),
        max_associations=row.max_associations,
        commitment=row.commitment,
    )


def _zone(ae_title: str, name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # Checked where it was entered, but perhaps on a machine that knows more zones.
        log.warning("application_entity.zone_unknown", calling_ae_title=ae_title)
        return None
