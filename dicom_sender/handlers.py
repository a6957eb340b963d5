"""What happens on ``attachment.requested`` and ``rejection.requested``, for one destination each.

Every answer is recorded as it comes. What a PACS has taken is never sent to it again, whatever
happened to the rest of the batch. A refusal that trying again cannot change is a dead letter at
once: when the cause has been removed, the dead letter is replayed.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo

import structlog
from prometheus_client import Counter
from sqlalchemy import Connection

from dicom_sender import attachments
from dicom_sender.attachments import LONGEST_REASON, Consignment
from dicom_sender.part10 import read_header
from dicom_sender.permission import (
    Withdrawn,
    keep_others_from_deciding,
    require_permission,
    require_rejection,
)
from dicom_sender.presentation import Stored
from dicom_sender.rejections import keep_note
from dicom_sender.send import Batch, Sent
from dicom_sender.store_outcome import PENDING, StoreOutcome, outcome_of
from imaging_store.instances import InstanceStore
from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
    AttachmentRequested,
    InstanceOutcome,
    RejectionDelivered,
    RejectionFailed,
    RejectionRequested,
)
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.message import Message
from service_runtime.database import Database
from service_runtime.errors import PermanentError, Postponed, TransientError
from service_runtime.messaging.answering import answer
from service_runtime.messaging.consumer import Effect

SOURCE = "dicom_sender"

STORED = Counter(
    "countersign_instances_sent", "C-STORE responses of PACS.", ["destination", "outcome"]
)

Send = Callable[[PacsDestination, Batch], None]
"""Sends a batch over associations with a destination."""

Commit = Callable[[PacsDestination, Consignment, Sequence[Stored]], bool]
"""Obtains Storage Commitment of what was taken; ``False`` where some is to be sent once more."""

_LOG = structlog.get_logger()


class AttachmentRefused(PermanentError):
    """The PACS has refused an instance for good, or is not configured, or there is no instance."""


class TryAgain(TransientError):
    """The PACS could not take an instance now."""


@dataclass(frozen=True)
class Sender:
    """The handlers of the branches of the queue ``attachment``."""

    database: Database
    store: InstanceStore
    destinations: Mapping[str, PacsDestination]
    send: Send
    now: Callable[[], datetime]
    time_zone: tzinfo
    commit: Commit
    """Called for destinations that are to commit."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the process is to end: what has not been sent waits for the next."""

    def __call__(self, envelope: Envelope) -> Effect:
        """Do what a message asks for.

        Raises
        ------
        PacsUnavailable, TryAgain
            Try again later; what was taken until then is recorded.
        Postponed
            A person, the PACS or the next process comes first.
        AttachmentRefused
            Trying again cannot help.
        """
        match envelope.body:
            case AttachmentRequested() as request:
                return self._attach(envelope, request)
            case RejectionRequested() as request:
                return self._reject(envelope, request)
            case Message() as body:
                raise AttachmentRefused(f"{body.TYPE}: the sender does not read it")

    def on_exhausted(self, envelope: Envelope, reason: str) -> Effect:
        """Tell that not everything was taken, and why."""
        reason = reason[:LONGEST_REASON]
        match envelope.body:
            case AttachmentRequested() as request:
                return self._tell(
                    envelope,
                    AttachmentFailed(
                        case_id=request.case_id,
                        case_version=request.case_version,
                        destination=request.destination,
                        outcomes=self._outcomes(Consignment.of(request)),
                        reason=reason,
                    ),
                )
            case RejectionRequested() as request:
                return self._tell(
                    envelope,
                    RejectionFailed(
                        case_id=request.case_id,
                        case_version=request.case_version,
                        destination=request.destination,
                        sop_instance_uids=self._taken(Consignment.of(request)),
                        reason=reason,
                    ),
                )
            case _:
                return lambda _transaction: None

    def _attach(self, envelope: Envelope, request: AttachmentRequested) -> Effect:
        destination = self._destination(request.destination)
        consigned = Consignment.of(request)
        sent_count = 0
        is_committed = False
        while not is_committed:
            statuses = self._statuses(consigned)
            waiting = [uid for uid in consigned.sop_instance_uids if not _is_taken(statuses, uid)]
            try:
                if waiting:
                    self._send(consigned, destination, waiting, request)
            except Withdrawn as withdrawn:
                # An answer and no dead letter: there is nothing to be replayed.
                _LOG.warning("attachment.withdrawn", reason=str(withdrawn), **_told(consigned))
                return self.on_exhausted(envelope, str(withdrawn))
            sent_count += len(waiting)
            is_committed = not destination.commitment or self._commit(destination, consigned)
        _LOG.info("attachment.delivered", instance_count=sent_count, **_told(consigned))
        delivered = AttachmentDelivered(
            case_id=request.case_id,
            case_version=request.case_version,
            destination=request.destination,
            outcomes=self._outcomes(consigned),
        )
        return self._tell(envelope, delivered)

    def _reject(self, envelope: Envelope, request: RejectionRequested) -> Effect:
        destination = self._destination(request.destination)
        consigned = Consignment.of(request)
        taken = self._taken(consigned)
        if taken:
            at = (envelope.time, self.time_zone)
            uid = keep_note(self.database, self.store, consigned, taken, at)
            noted = replace(consigned, sop_instance_uids=(uid,))
            try:
                if not _is_taken(self._statuses(noted), uid):
                    # A note that may have arrived is not taken back: it is sent until it has.
                    self._send(noted, destination, [uid], None if self._taken(noted) else request)
            except Withdrawn as withdrawn:
                _LOG.warning("rejection.withdrawn", reason=str(withdrawn), **_told(consigned))
                taken = ()
        _LOG.info("rejection.delivered", instance_count=len(taken), **_told(consigned))
        delivered = RejectionDelivered(
            case_id=request.case_id,
            case_version=request.case_version,
            destination=request.destination,
            sop_instance_uids=taken,
        )
        return self._tell(envelope, delivered)

    def _commit(self, destination: PacsDestination, consigned: Consignment) -> bool:
        stored = self._stored(consigned, consigned.sop_instance_uids)
        return self.commit(destination, consigned, stored)

    def _destination(self, name: str) -> PacsDestination:
        destination = self.destinations.get(name)
        if destination is None:
            raise AttachmentRefused(
                f"{name} is no destination; COUNTERSIGN_PACS_DESTINATIONS lists them"
            )
        return destination

    def _send(
        self,
        consigned: Consignment,
        destination: PacsDestination,
        uids: Sequence[str],
        request: AttachmentRequested | RejectionRequested | None,
    ) -> None:
        """Send these until each has been taken, or a person decides against ``request``."""

        def check(connection: Connection) -> None:
            if self.stop.is_set():
                raise Postponed("the sender is stopping", delay_s=0)
            if isinstance(request, AttachmentRequested):
                require_permission(connection, request, destination.release)
            elif request is not None:
                require_rejection(connection, request)

        def before_each(stored: Stored) -> None:
            # A person may decide, and the process be stopped, while a long batch is under way.
            with self.database.transaction() as transaction:
                if request is not None:
                    keep_others_from_deciding(transaction.connection, request)
                check(transaction.connection)
                attachments.begin(transaction, consigned, stored.sop_instance_uid, self.now())

        stored = self._stored(consigned, uids)
        with self.database.reading() as connection:
            check(connection)
        batch = Batch(stored, before_each, lambda sent: self._record(consigned, sent))
        try:
            self.send(destination, batch)
            _require_all_taken(consigned, self._statuses(consigned))
        except (Postponed, Withdrawn):
            raise
        except (TransientError, PermanentError) as error:
            with self.database.transaction() as transaction:
                attachments.note_contact(transaction, destination.name, self.now(), str(error))
            raise
        with self.database.transaction() as transaction:
            attachments.note_contact(transaction, destination.name, self.now())

    def _stored(self, consigned: Consignment, uids: Sequence[str]) -> list[Stored]:
        with self.database.reading() as connection:
            keys = attachments.keys(connection, consigned, uids)
        missing = [uid for uid in uids if uid not in keys]
        if missing:
            raise AttachmentRefused(
                f"{len(missing)} of {len(uids)} instances are not in the store, "
                f"the first of them {missing[0]}"
            )
        stored = []
        for uid in uids:
            with self.store.open(keys[uid]) as file:
                stored.append(read_header(file, keys[uid]))
        return stored

    def _statuses(self, consigned: Consignment) -> dict[str, int]:
        with self.database.reading() as connection:
            return attachments.statuses(connection, consigned)

    def _taken(self, consigned: Consignment) -> tuple[str, ...]:
        with self.database.reading() as connection:
            there = attachments.perhaps_there(connection, consigned)
        return tuple(uid for uid in consigned.sop_instance_uids if uid in there)

    def _record(self, consigned: Consignment, sent: Sent) -> None:
        outcome = outcome_of(sent.status)
        STORED.labels(consigned.destination, outcome).inc()
        if outcome is not StoreOutcome.TAKEN:
            _LOG.warning(
                "instance.not_taken",
                study_instance_uid=consigned.study_instance_uid,
                sop_instance_uid=sent.sop_instance_uid,
                destination=consigned.destination,
                status_code=f"0x{sent.status:04X}",
                outcome=outcome,
            )
        with self.database.transaction() as transaction:
            attachments.record(transaction, consigned, sent, self.now())

    def _outcomes(self, consigned: Consignment) -> tuple[InstanceOutcome, ...]:
        statuses = self._statuses(consigned)
        return tuple(
            InstanceOutcome(sop_instance_uid=uid, status=statuses[uid])
            for uid in consigned.sop_instance_uids
            if statuses.get(uid, PENDING) != PENDING
        )

    def _tell(self, envelope: Envelope, message: Message) -> Effect:
        return lambda tx: answer(tx, envelope, message, source=SOURCE, time=self.now())


def _is_taken(statuses: Mapping[str, int], uid: str) -> bool:
    return uid in statuses and outcome_of(statuses[uid]) is StoreOutcome.TAKEN


def _told(consigned: Consignment) -> dict[str, object]:
    return {
        "study_instance_uid": consigned.study_instance_uid,
        "case_id": consigned.case_id,
        "case_version": consigned.case_version,
        "destination": consigned.destination,
    }


def _require_all_taken(consigned: Consignment, statuses: Mapping[str, int]) -> None:
    """Tell the worst that was answered; what may still pass goes before what cannot."""
    by_outcome: dict[StoreOutcome, list[int]] = {}
    for uid in consigned.sop_instance_uids:
        by_outcome.setdefault(outcome_of(statuses[uid]), []).append(statuses[uid])
    for outcome, error in (
        (StoreOutcome.TO_BE_TRIED_AGAIN, TryAgain),
        (StoreOutcome.REFUSED, AttachmentRefused),
    ):
        found = by_outcome.get(outcome)
        if found:
            codes = ", ".join(f"0x{status:04X}" for status in sorted(set(found)))
            raise error(
                f"{consigned.destination} did not take {len(found)} of "
                f"{len(consigned.sop_instance_uids)} instances: {codes}"
            )
