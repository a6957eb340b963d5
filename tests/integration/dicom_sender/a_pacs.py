"""A PACS that answers as a test has it, and what the sender keeps and says of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from sqlalchemy import select

from imaging_store.schema.delivery import attachment
from message_contracts import catalogue
from service_runtime.database import Database
from service_runtime.messaging.tables import message
from tests.peers.processes import (
    LOOPBACK,
    free_port,
)


@contextmanager
def a_pacs(
    answer: Callable[[Any], int],
    *,
    sop_classes: Sequence[UID] = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage),
    also: Sequence[str] = (),
    transfer_syntaxes: Sequence[str] = (ImplicitVRLittleEndian,),
    require_called_ae_title: bool = False,
    handlers: Sequence[Any] = (),
    port: int | None = None,
) -> Iterator[int]:
    """Run a Storage SCP that answers each C-STORE with a Status of the test's choice."""
    entity = AE("ORTHANC")
    for sop_class in sop_classes:
        entity.add_supported_context(sop_class, list(transfer_syntaxes))
    for sop_class in also:
        entity.add_supported_context(sop_class)
    entity.require_called_aet = require_called_ae_title
    port = port or free_port()
    server = entity.start_server(
        (LOOPBACK, port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer), *handlers]
    )
    try:
        yield port
    finally:
        server.shutdown()


def answers(database: Database, effect: Callable[[Any], None]) -> list[Any]:
    """Run an effect and return the messages that it sent."""
    with database.transaction() as transaction:
        effect(transaction)
    with database.reading() as connection:
        bodies = connection.execute(select(message.c.body)).scalars().all()
    return [catalogue.decode(body).body for body in bodies]


def recorded(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        rows = connection.execute(select(attachment)).all()
    return {row.sop_instance_uid: row.status for row in rows}
