"""Results that went to a PACS and should not have: a rejection note follows them (IHE IOCM).

The doctor did not agree with them, the case ended without a report, or a person has corrected the
study that they were made of. What has not gone yet does not go: the sender asks again before it
sends.
"""

from collections.abc import Iterable

from message_contracts.case import DeliveryState
from message_contracts.delivery import RejectionDelivered, RejectionFailed, RejectionRequested
from service_runtime.database import Transaction
from workflow_engine import cases, deliveries, findings, history
from workflow_engine.case import Case, Trigger
from workflow_engine.dispatch import Occasion, send
from workflow_engine.history import Entry

_FOLLOWS = "a rejection note follows what was sent"
_STAYS_REJECTED = "a rejection note had arrived before the doctor agreed"
_NOTHING_SENT = "it was withdrawn before anything was sent"


def unsigned_versions(case: Case) -> range:
    """Return the versions that no signed report stands on.

    Later images may have taken the place of one whose results had gone to a reading room by then.
    """
    return range((case.report_version or 0) + 1, case.version + 1)


def reject_results(
    transaction: Transaction, case: Case, versions: Iterable[int], occasion: Occasion
) -> None:
    """Have a rejection note go wherever the results of these versions may have gone; once each.

    The sender knows what each PACS has taken: where that is nothing, no note is sent.
    """
    for version in versions:
        _reject_results_of(transaction, case, version, occasion)


def tell_what_stays_rejected(transaction: Transaction, case: Case, occasion: Occasion) -> None:
    """Tell of PACS that were sent a rejection note about results that the doctor agrees with now.

    A PACS hides what a note rejects, however often it is sent again: that stays as it is there.
    """
    connection = transaction.connection
    for each in deliveries.of_version(connection, case):
        if each.state is DeliveryState.REJECTED:
            became = (DeliveryState.REJECTED, _STAYS_REJECTED)
            deliveries.settle(connection, case.id, each, became, occasion.at)


def _reject_results_of(
    transaction: Transaction, case: Case, version: int, occasion: Occasion
) -> None:
    connection = transaction.connection
    uids = findings.result_sop_instance_uids(cases.readings(connection, case.id, version))
    for withdrawn in deliveries.withdraw(connection, case, version, _FOLLOWS, occasion.at):
        details = {
            "destination": withdrawn.destination,
            "version_rejected": version,
            "sop_instance_uids": list(uids),
        }
        history.append(
            connection,
            case,
            case,
            Entry(Trigger.REJECTION_REQUESTED, occasion.at, details=details),
        )
        send(
            transaction,
            RejectionRequested(
                case_id=case.id,
                case_version=version,
                study_instance_uid=case.study_instance_uid,
                destination=withdrawn.destination,
                sop_instance_uids=uids,
            ),
            deliveries.message_id(RejectionRequested.TYPE, case.id, withdrawn),
            occasion,
        )


def rejection_answered(
    transaction: Transaction, case: Case, body: RejectionDelivered, occasion: Occasion
) -> None:
    """Keep what became of a rejection note."""
    connection = transaction.connection
    before = deliveries.find(connection, case.id, body.case_version, body.destination)
    if before is None or before.state is DeliveryState.REJECTED:
        return
    if isinstance(body, RejectionFailed):
        if before.rejected_at is None:
            # The doctor agrees by now: it is shown rightly.
            return
        state, reason = (
            DeliveryState.FAILED,
            f"it still shows what is rejected: {body.reason}"[:500],
        )
        if (state, reason) == (before.state, before.reason):
            return
    elif body.sop_instance_uids:
        state, reason = DeliveryState.REJECTED, None
    else:
        # It had taken nothing; what became of the results themselves is told by their own answer.
        state, reason = before.state, before.reason
        if reason == _FOLLOWS:
            reason = _NOTHING_SENT
    deliveries.settle(connection, case.id, before, (state, reason), occasion.at)
    details = {
        "destination": body.destination,
        "version_answered": body.case_version,
        "state": str(state),
        "rejected": list(body.sop_instance_uids),
    }
    history.append(
        connection, case, case, Entry(Trigger.DELIVERY_ANSWERED, occasion.at, details=details)
    )
