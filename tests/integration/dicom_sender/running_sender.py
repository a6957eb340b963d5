"""A sender's process, and what it is asked for and answers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import delete, select

from imaging_store.schema.delivery import attachment
from message_contracts import catalogue, topology
from message_contracts.delivery import AttachmentDelivered, AttachmentRequested
from message_contracts.destination import DestinationRetry, PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from service_runtime.database import Database
from service_runtime.messaging import outbox
from service_runtime.messaging.tables import delivery, message
from tests.integration.dicom_sender.kept_case import NOON
from tests.peers.processes import LOOPBACK, ServerProcess, wait_until

QUICK = DestinationRetry(first_delay_s=0.2, multiplier=1, cap_s=0.2, attempts=3)
PATIENT = DestinationRetry(first_delay_s=0.2, multiplier=1, cap_s=0.2, attempts=1000)


Answer = TypeVar("Answer", bound=AttachmentDelivered)


class RunningSender:
    """A sender's process, and what it is asked for and answers."""

    def __init__(self, process: ServerProcess, database: Database, request: Envelope) -> None:
        self.process, self.database, self.request = process, database, request

    def ask(self, destination: str, *, number: int = 0) -> None:
        """Ask for the results to go to a destination."""
        body = self.request.data(AttachmentRequested).model_copy(
            update={"destination": destination}
        )
        envelope = Envelope.of(
            body, source="workflow_engine", time=NOON, id=derived_id(destination, number)
        )
        with self.database.transaction() as transaction:
            outbox.send(transaction, envelope)

    def told(self, kind: type[Answer], destination: str) -> list[Answer]:
        """Return what the case has heard of a destination."""
        with self.database.reading() as connection:
            bodies = connection.execute(
                select(message.c.body).where(message.c.routing_key == kind.TYPE)
            ).scalars()
            told = [catalogue.decode(body).body for body in bodies]
        return [each for each in told if type(each) is kind and each.destination == destination]

    def wait_for(
        self, kind: type[AttachmentDelivered], destination: str, *, times: int = 1
    ) -> None:
        """Wait until the case has heard it so often."""
        wait_until(
            lambda: len(self.told(kind, destination)) == times,
            what=f"{kind.TYPE} of {destination}",
        )

    def delivery_s(self, destination: str, number: int) -> float:
        """Have the results go to a destination as if for the first time; return in which time."""
        with self.database.transaction() as transaction:
            transaction.connection.execute(delete(attachment))
        began = time.monotonic()
        self.ask(destination, number=number)
        self.wait_for(AttachmentDelivered, destination, times=number + 1)
        return time.monotonic() - began

    def last_error(self, destination: str) -> str:
        """Return what the last try for a destination found."""
        branch = topology.branch_of(topology.ATTACHMENT, destination)
        with self.database.reading() as connection:
            row = connection.execute(
                select(delivery.c.last_error).where(delivery.c.queue == branch)
            ).first()
        return (row.last_error or "") if row else ""


def environment(
    database_url: str, broker_url: str, folder: Path, **settings: str
) -> dict[str, str]:
    """Return the environment of a service over this database and broker."""
    settings = {
        "DATA_DIR": str(folder),
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        **settings,
    }
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        **{f"COUNTERSIGN_{name}": value for name, value in settings.items()},
    }


def at(port: int, name: str = "archive", **more: Any) -> PacsDestination:
    more = {"retry": QUICK, "ae_title": "ORTHANC", **more}
    return PacsDestination(name=name, host=LOOPBACK, port=port, **more)
