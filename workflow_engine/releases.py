"""Which destinations get what, and when. Pure.

Nothing leaves before its signature: each destination says from which status on the results of a
case may be sent to it; what the doctor did not agree with, and what was rejected, is never sent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from message_contracts.case import CaseStatus, Release
from message_contracts.destination import PacsDestination
from workflow_engine.case import Case
from workflow_engine.signing import Decision


@dataclass(frozen=True)
class Results:
    """What there is to send of the version under way."""

    sop_instance_uids: tuple[str, ...]
    decision: Decision | None
    """The doctor's, where their signature is in force."""


_ANALYZED = frozenset(
    {
        CaseStatus.AI_ANALYZED,
        CaseStatus.DOCTOR_VERIFIED,
        CaseStatus.PHARMACIST_COMPLETED,
        CaseStatus.REPORT_READY,
        CaseStatus.RETURNED,
        CaseStatus.AMENDING,
    }
)
_VERIFIED = frozenset(
    {CaseStatus.DOCTOR_VERIFIED, CaseStatus.PHARMACIST_COMPLETED, CaseStatus.REPORT_READY}
)


def may_leave(case: Case, results: Results, release: Release) -> bool:
    """Tell whether the results of the version under way may go where this release rule holds."""
    if case.on_hold or not results.sop_instance_uids:
        return False
    # Of an amendment models are still reading; or it was rejected, and the report in force is of an
    # earlier version.
    still_read = (case.status, case.stage) == (CaseStatus.AMENDING, None)
    if still_read or case.version_shown != case.version:
        return False
    if release is Release.AI_ANALYZED:
        return case.status in _ANALYZED and results.decision in {None, Decision.AGREE}
    if results.decision is not Decision.AGREE:
        return False
    if release is Release.DOCTOR_VERIFIED:
        # Sent back by the admin, the case still has the doctor's signature.
        return case.status in _VERIFIED or case.status is CaseStatus.RETURNED
    return case.status is CaseStatus.REPORT_READY


def due(
    case: Case,
    results: Results,
    destinations: Sequence[PacsDestination],
    requested: Iterable[str],
) -> tuple[PacsDestination, ...]:
    """Return the destinations that the results go to now, and were not sent to before."""
    already = set(requested)
    return tuple(
        destination
        for destination in destinations
        if destination.name not in already and may_leave(case, results, destination.release)
    )
