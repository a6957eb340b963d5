"""Obtaining Storage Commitment (PS3.4 Annex J) of what a PACS has taken.

A PACS reports on our association, or later on one of its own, to the listener. What it does not
commit to is sent once more; what it refuses again is a person's business.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset

from dicom_sender import attachments, commitments
from dicom_sender.association import (
    PacsUnavailable,
    associated,
    propose_commitment,
)
from dicom_sender.attachments import Consignment
from dicom_sender.caller import Caller
from dicom_sender.commitments import Standing
from dicom_sender.presentation import Stored
from dicom_sender.store_outcome import StoreOutcome, outcome_of
from message_contracts.delivery import CommitmentReported
from message_contracts.destination import PacsDestination
from service_runtime.database import Database
from service_runtime.errors import PermanentError, Postponed

PATIENCE_S = 24 * 3600.0
"""A PACS that has not reported by then is not going to."""

_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 2.0, 600.0
_POLL_S = 0.05
_SUCCESS = 0x0000


class NotCommitted(PermanentError):
    """The PACS does not commit itself to keep what it has taken."""


@dataclass(frozen=True)
class Committer:
    """Asks PACS for Storage Commitment."""

    database: Database
    caller: Caller
    now: Callable[[], datetime]
    wait_s: float
    """How long to keep the association open for the report."""
    stop: threading.Event

    def __call__(
        self, destination: PacsDestination, consigned: Consignment, stored: Sequence[Stored]
    ) -> bool:
        """Tell whether all is committed; ``False`` where some is to be sent once more first.

        Raises
        ------
        Postponed
            The PACS has not reported yet.
        PacsUnavailable
            It could not be asked.
        NotCommitted
            It has refused twice, has not reported for a day, or does not know the service.
        """
        standing = self._standing(consigned)
        last = standing.last
        if last is not None and last.answered and not last.settled:
            return self._settle(destination, consigned, standing)
        asked_for = [each for each in stored if each.sop_instance_uid not in standing.committed]
        if not asked_for:
            return True
        if last is not None and not last.answered and last.accepted_at is not None:
            raise self._not_yet(destination, last.transaction_uid, last.accepted_at)
        self._ask(destination, consigned, asked_for)
        standing = self._standing(consigned)
        if standing.last is not None and standing.last.answered:
            return self._settle(destination, consigned, standing)
        raise Postponed(f"{destination.name} has yet to commit", _SHORTEST_LOOK_S)

    def _standing(self, consigned: Consignment) -> Standing:
        with self.database.reading() as connection:
            return commitments.standing(connection, consigned)

    def _settle(
        self, destination: PacsDestination, consigned: Consignment, standing: Standing
    ) -> bool:
        refused, last = standing.refused, standing.last
        with self.database.transaction() as transaction:
            if last is not None:
                commitments.settle(transaction, last.transaction_uid, self.now())
            attachments.doubt(transaction, consigned, list(refused), self.now())
        if refused and standing.rounds % 2 == 0:
            codes = ", ".join(f"0x{reason:04X}" for reason in sorted(set(refused.values())))
            raise NotCommitted(
                f"{destination.name} does not commit to {len(refused)} of "
                f"{len(consigned.sop_instance_uids)} instances, sent twice: {codes}"
            )
        return not refused

    def _not_yet(
        self, destination: PacsDestination, transaction_uid: str, accepted_at: datetime
    ) -> Exception:
        waited_s = (self.now() - accepted_at).total_seconds()
        if waited_s > PATIENCE_S:
            with self.database.transaction() as transaction:
                commitments.give_up(transaction, transaction_uid, self.now())
            return NotCommitted(
                f"{destination.name} took the request for commitment and has not reported "
                f"for {waited_s / 3600:.0f} h; its entry for us has to name our AE title and port"
            )
        look_s = min(max(waited_s / 4, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)
        return Postponed(f"{destination.name} has yet to commit", look_s)

    def _ask(
        self, destination: PacsDestination, consigned: Consignment, asked_for: Sequence[Stored]
    ) -> None:
        uids = [each.sop_instance_uid for each in asked_for]
        with self.database.transaction() as transaction:
            transaction_uid = commitments.ask(transaction, consigned, uids, self.now())

        def on_report(_event_type_id: int, information: Dataset) -> None:
            report = CommitmentReported.told(destination.ae_title, information)
            with self.database.transaction() as transaction:
                ae_titles = {destination.name: destination.ae_title}
                commitments.keep_report(transaction, report, ae_titles, self.now())

        with associated(destination, self.caller, [propose_commitment()], on_report) as association:
            if association is None:
                raise NotCommitted(f"{destination.name} does not offer Storage Commitment")
            status = association.request_commitment(
                transaction_uid,
                [(each.sop_class_uid, each.sop_instance_uid) for each in asked_for],
            )
            if status != _SUCCESS:
                words = f"{destination.name} was asked to commit and answered 0x{status:04X}"
                if outcome_of(status) is StoreOutcome.REFUSED:
                    raise NotCommitted(words)
                raise PacsUnavailable(words)
            with self.database.transaction() as transaction:
                commitments.accepted(transaction, transaction_uid, self.now())
            self._wait_for_report(transaction_uid)

    def _wait_for_report(self, transaction_uid: str) -> None:
        """Wait for a report, on this association or to the listener, for a while."""
        for _ in range(max(int(self.wait_s / _POLL_S), 1)):
            with self.database.reading() as connection:
                if commitments.is_answered(connection, transaction_uid):
                    return
            if self.stop.wait(_POLL_S):
                return
