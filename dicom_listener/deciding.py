"""Who reads what on the queue ``intake``, and what they read it with."""

from collections.abc import Callable
from datetime import datetime

from dicom_listener.application_entities import look_up
from dicom_listener.duplicates import Duplicates
from dicom_listener.handlers import intake_handler, on_completion_requested
from dicom_listener.peers import Peer, peer_of
from dicom_listener.quarantine import Quarantine
from dicom_listener.rereading import Rereader
from dicom_listener.settlement import Settlement
from imaging_store.instances import FileInstanceStore
from message_contracts.envelope import Envelope
from message_contracts.intake import (
    CompletionRequested,
    ConflictDecided,
    InstanceDuplicated,
    QuarantineDecided,
)
from message_contracts.message import Message
from service_runtime.database import Database
from service_runtime.messaging.consumer import Effect, Handler, Handling


def intake_handling(
    database: Database, store: FileInstanceStore, site: Peer, now: Callable[[], datetime]
) -> Handling:
    """Return the handling of the queue; ``site`` is a peer of which nothing is listed."""
    rereader = Rereader(
        store, lambda ae_title: peer_of(ae_title, look_up(database, ae_title).entry, site)
    )
    duplicates = Duplicates(database, rereader, now)
    settlement = Settlement(database, rereader, now)
    handlers: dict[type[Message], Handler] = {
        CompletionRequested: on_completion_requested(now),
        InstanceDuplicated: duplicates.on_instance_duplicated,
        ConflictDecided: settlement.on_conflict_decided,
        QuarantineDecided: Quarantine(database, rereader, now).on_quarantine_decided,
    }

    def on_exhausted(envelope: Envelope, reason: str) -> Effect:
        if isinstance(envelope.body, ConflictDecided):
            return settlement.on_exhausted(envelope)
        return duplicates.on_exhausted(envelope, reason)

    return Handling(intake_handler(handlers), on_exhausted=on_exhausted)
