"""What happens on ``attachment.requested``: instances go to a PACS, and the case hears of it.

Every answer is recorded as it comes. What a PACS has taken is never sent to it again, whatever
happened to the rest of the batch. A refusal that trying again cannot change is a dead letter at
once: when the cause has been removed, the dead letter is replayed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from prometheus_client import Counter
from sqlalchemy import delete, select, union_all

from dicom_sender.permission import Withdrawn, require_permission
from dicom_sender.store_outcome import StoreOutcome, outcome_of
from imaging_store.instances import InstanceStore
from imaging_store.schema.delivery import attachment
from imaging_store.schema.ingest import instance
from imaging_store.schema.results import result_object
from message_contracts.delivery import (
    AttachmentDelivered,
    AttachmentFailed,
    AttachmentRequested,
    InstanceOutcome,
)
from message_contracts.destination import PacsDestination
from message_contracts.envelope import Envelope
from message_contracts.identifiers import derived_id
from service_runtime.database import Database, Transaction
from service_runtime.errors import PermanentError, TransientError
from service_runtime.messaging import outbox
from service_runtime.messaging.consumer import Effect

SOURCE = "dicom_sender"
MOST_REASON = 500

STORED = Counter(
    "countersign_instances_sent", "C-STORE responses of PACS.", ["destination", "outcome"]
)

Send = Callable[[PacsDestination, Sequence[bytes], Callable[[str, int], None]], None]
"""Sends Part 10 files; hears the SOP Instance UID and the Status of each as it is answered."""

_LOG = structlog.get_logger()


class AttachmentRefused(PermanentError):
    """The PACS has refused an instance for good, or is not configured, or there is no instance."""


class TryAgain(TransientError):
    """The PACS could not take an instance now."""


@dataclass(frozen=True)
class Sender:
    """The handlers of the queue ``attachment``."""

    database: Database
    store: InstanceStore
    destinations: Mapping[str, PacsDestination]
    send: Send
    now: Callable[[], datetime]

    def on_attachment_requested(self, envelope: Envelope) -> Effect:
        """Send what has not been taken yet, if it may still leave; else tell that it did not.

        Raises
        ------
        PacsUnavailable, TryAgain, NotNow
            Try again later; what was taken until then is recorded.
        AttachmentRefused
            Trying again cannot help.
        """
        request = envelope.data(AttachmentRequested)
        destination = self.destinations.get(request.destination)
        if destination is None:
            raise AttachmentRefused(
                f"{request.destination} is no destination; COUNTERSIGN_PACS_DESTINATIONS lists them"
            )
        statuses = self._recorded(request)
        waiting = [
            uid
            for uid in request.sop_instance_uids
            if uid not in statuses or outcome_of(statuses[uid]) is not StoreOutcome.TAKEN
        ]
        if waiting:
            try:
                self._require_permission(request, destination)
            except Withdrawn as withdrawn:
                # An answer and no dead letter: there is nothing to be replayed.
                _LOG.warning(
                    "attachment.withdrawn",
                    study_instance_uid=request.study_instance_uid,
                    case_id=request.case_id,
                    case_version=request.case_version,
                    destination=request.destination,
                    reason=str(withdrawn),
                )
                return self.on_exhausted(envelope, str(withdrawn))
            contents = self._contents(request, waiting)
            self.send(destination, contents, lambda uid, status: self._record(request, uid, status))
            statuses = self._recorded(request)
            _require_all_taken(request, statuses)
        _LOG.info(
            "attachment.delivered",
            study_instance_uid=request.study_instance_uid,
            case_id=request.case_id,
            case_version=request.case_version,
            destination=request.destination,
            instance_count=len(waiting),
        )
        delivered = AttachmentDelivered(
            case_id=request.case_id,
            case_version=request.case_version,
            destination=request.destination,
            outcomes=_outcomes(request, statuses),
        )
        answer = envelope.leads_to(
            delivered,
            source=SOURCE,
            time=self.now(),
            id=derived_id(AttachmentDelivered.TYPE, envelope.id),
        )
        return lambda transaction: outbox.send(transaction, answer)

    def on_exhausted(self, envelope: Envelope, reason: str) -> Effect:
        """Tell that not everything was taken, and why."""
        request = envelope.data(AttachmentRequested)
        failed = AttachmentFailed(
            case_id=request.case_id,
            case_version=request.case_version,
            destination=request.destination,
            outcomes=_outcomes(request, self._recorded(request)),
            reason=reason[:MOST_REASON],
        )
        answer = envelope.leads_to(
            failed,
            source=SOURCE,
            time=self.now(),
            id=derived_id(AttachmentFailed.TYPE, envelope.id),
        )
        return lambda transaction: outbox.send(transaction, answer)

    def _require_permission(
        self, request: AttachmentRequested, destination: PacsDestination
    ) -> None:
        with self.database.reading() as connection:
            require_permission(connection, request, destination.release)

    def _recorded(self, request: AttachmentRequested) -> dict[str, int]:
        """Return the Status of what the destination has answered to before."""
        columns = attachment.c
        with self.database.reading() as connection:
            rows = connection.execute(
                select(columns.sop_instance_uid, columns.status).where(
                    columns.destination == request.destination,
                    columns.sop_instance_uid.in_(request.sop_instance_uids),
                )
            )
            return {row.sop_instance_uid: row.status for row in rows}

    def _record(self, request: AttachmentRequested, sop_instance_uid: str, status: int) -> None:
        outcome = outcome_of(status)
        STORED.labels(request.destination, outcome).inc()
        if outcome is not StoreOutcome.TAKEN:
            _LOG.warning(
                "instance.not_taken",
                study_instance_uid=request.study_instance_uid,
                sop_instance_uid=sop_instance_uid,
                destination=request.destination,
                status_code=f"0x{status:04X}",
                outcome=outcome,
            )
        with self.database.transaction() as transaction:
            _replace(
                transaction,
                {
                    "destination": request.destination,
                    "sop_instance_uid": sop_instance_uid,
                    "case_id": request.case_id,
                    "case_version": request.case_version,
                    "status": status,
                    "answered_at": self.now(),
                },
            )

    def _contents(self, request: AttachmentRequested, uids: Sequence[str]) -> list[bytes]:
        """Return the Part 10 files of results and of received instances of the study."""
        of_results, of_received = result_object.c, instance.c
        with self.database.reading() as connection:
            rows = connection.execute(
                union_all(
                    *(
                        select(columns.sop_instance_uid, columns.key).where(
                            columns.study_instance_uid == request.study_instance_uid,
                            columns.sop_instance_uid.in_(uids),
                        )
                        for columns in (of_results, of_received)
                    )
                )
            )
            # Ours come back from a PACS that routes everything to us: either is the same.
            keys = {row.sop_instance_uid: row.key for row in rows}
        missing = [uid for uid in uids if uid not in keys]
        if missing:
            raise AttachmentRefused(
                f"{len(missing)} of {len(uids)} instances are not in the store, "
                f"the first of them {missing[0]}"
            )
        return [self.store.read(keys[uid]) for uid in uids]


def _replace(transaction: Transaction, row: dict[str, object]) -> None:
    columns = attachment.c
    transaction.connection.execute(
        delete(attachment).where(
            columns.destination == row["destination"],
            columns.sop_instance_uid == row["sop_instance_uid"],
        )
    )
    transaction.connection.execute(attachment.insert(), row)


def _require_all_taken(request: AttachmentRequested, statuses: Mapping[str, int]) -> None:
    """Tell the worst that was answered; what may still pass goes before what cannot."""
    by_outcome: dict[StoreOutcome, list[int]] = {}
    for uid in request.sop_instance_uids:
        by_outcome.setdefault(outcome_of(statuses[uid]), []).append(statuses[uid])
    for outcome, error in (
        (StoreOutcome.TO_BE_TRIED_AGAIN, TryAgain),
        (StoreOutcome.REFUSED, AttachmentRefused),
    ):
        found = by_outcome.get(outcome)
        if found:
            codes = ", ".join(f"0x{status:04X}" for status in sorted(set(found)))
            raise error(
                f"{request.destination} did not take {len(found)} of "
                f"{len(request.sop_instance_uids)} instances: {codes}"
            )


def _outcomes(
    request: AttachmentRequested, statuses: Mapping[str, int]
) -> tuple[InstanceOutcome, ...]:
    return tuple(
        InstanceOutcome(sop_instance_uid=uid, status=statuses[uid])
        for uid in request.sop_instance_uids
        if uid in statuses
    )
