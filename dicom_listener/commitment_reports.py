"""Hears from PACS which instances they commit to keep (PS3.4 §J.3.3), and passes it on.

We are the SCU of Storage Commitment here: ``dicom_sender`` has asked, and a PACS answers with an
N-EVENT-REPORT on an association of its own, for which it proposes to be the SCP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from dicom_listener.normalized import (
    INVALID_ARGUMENT_VALUE,
    PROCESSING_FAILURE,
    SUCCESS,
    Answer,
    Request,
)
from dicom_listener.peers import Peer
from dicom_listener.storage_commitment import STORAGE_COMMITMENT
from message_contracts.delivery import CommitmentReported
from message_contracts.envelope import Envelope
from service_runtime.database import Database
from service_runtime.messaging import outbox

SOURCE = "dicom_listener"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CommitmentReports:
    """Answers N-EVENT-REPORT of Storage Commitment; what was never asked for is passed over."""

    database: Database
    now: Callable[[], datetime]
    sop_class_uid: str = STORAGE_COMMITMENT

    def is_heard_from(self, peer: Peer) -> bool:  # noqa: ARG002 - as the protocol has it
        """Whether a report of this peer is heard: of every one that may associate with us.

        A report changes something only where it names the transaction that we asked under.
        """
        return True

    def n_event_report(self, request: Request) -> Answer:
        """Pass a report on, durable before it is answered."""
        try:
            report = CommitmentReported.told(request.peer.ae_title[:16], request.data_set)
        except ValueError:
            log.warning("commitment_report.refused", calling_ae_title=request.peer.ae_title)
            return Answer(INVALID_ARGUMENT_VALUE, "An attribute of the report is missing or wrong")
        try:
            with self.database.transaction() as transaction:
                outbox.send(transaction, Envelope.of(report, source=SOURCE, time=self.now()))
        except Exception:
            # The PACS tells it again, or the sender asks again.
            log.exception("commitment_report.failed", transaction_uid=report.transaction_uid)
            return Answer(PROCESSING_FAILURE, "Internal error, nothing was kept; report again")
        log.info(
            "commitment_report.heard",
            calling_ae_title=request.peer.ae_title,
            transaction_uid=report.transaction_uid,
        )
        return Answer(SUCCESS)
