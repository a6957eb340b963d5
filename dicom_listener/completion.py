"""When a version of a study is complete: by the first evidence that says so. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicom_listener.procedure_step import ProcedureStep, StepStatus
from dicom_listener.study_progress import Progress
from message_contracts.ingest import CompletionReason


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is waited at most."""

    association_timeout: timedelta
    """For an association that has sent to a study, and sends nothing more."""
    deadline: timedelta
    """For a version in all, from its first instance."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for and against going on to wait."""

    is_sent_to: bool = False
    """An association is open that has sent to this study last."""
    has_all_listed: bool = False
    """As `has_all_listed` tells of its procedure steps."""


def completed_by(
    progress: Progress, evidence: Evidence, now: datetime, limits: Limits
) -> CompletionReason | None:
    """Return why the next version of a study is complete, or ``None`` while it is not."""
    if progress.pending_since is None or progress.quiet_until is None:
        return None
    if evidence.has_all_listed:
        return CompletionReason.MPPS
    if progress.quiet_until <= now and not _is_held_open(
        progress.quiet_until, evidence, now, limits
    ):
        return CompletionReason.QUIET
    if progress.pending_since + limits.deadline <= now:
        return CompletionReason.DEADLINE
    return None


def _is_held_open(quiet_until: datetime, evidence: Evidence, now: datetime, limits: Limits) -> bool:
    """Whether an association may go on sending; one that has died with its machine cannot."""
    return evidence.is_sent_to and now < quiet_until + limits.association_timeout


@dataclass(frozen=True, slots=True)
class Listing:
    """What the procedure steps of a study list, taken together."""

    awaited: tuple[str, ...]
    """SOP Instance UIDs that have to arrive: those of the COMPLETED steps."""
    accounted_for: frozenset[str]
    """Those of all steps: a discontinued one has listed what it made, and need not send it."""


def listing(steps: Iterable[ProcedureStep]) -> Listing | None:
    """Return what is listed, or ``None`` while that tells nothing.

    That is while a step is IN PROGRESS, and where no COMPLETED one lists an instance.
    """
    steps = tuple(steps)
    if any(step.status is StepStatus.IN_PROGRESS for step in steps):
        return None
    awaited = dict.fromkeys(
        uid
        for step in steps
        if step.status is StepStatus.COMPLETED
        for uid in step.sop_instance_uids
    )
    if not awaited:
        return None
    accounted_for = frozenset(uid for step in steps for uid in step.sop_instance_uids)
    return Listing(tuple(awaited), accounted_for)


def has_all_listed(
    listed: Listing, arrived: Collection[str], waiting_images: Collection[str]
) -> bool:
    """Whether procedure steps say that the next version is complete.

    Every instance that they await has arrived, and they account for every image that waits to be
    announced: where one is not listed, more of its kind may follow.
    """
    return all(uid in arrived for uid in listed.awaited) and listed.accounted_for.issuperset(
        waiting_images
    )
