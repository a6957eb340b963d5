"""How far a study has come, and what an arrival does to that. Pure."""

from datetime import datetime, timedelta
from typing import NamedTuple


class Progress(NamedTuple):
    """How far a study has come."""

    version: int
    """The last version announced; 0 while the first is arriving."""
    pending_since: datetime | None = None
    """When the first instance came that belongs to a version not yet announced."""
    quiet_until: datetime | None = None
    """Until when such instances keep the study waiting; set whenever ``pending_since`` is."""


NOT_BEGUN = Progress(version=0)


def after_arrival(
    progress: Progress, *, makes_version: bool, at: datetime, quiet_period: timedelta
) -> Progress:
    """Return how a new instance leaves its study.

    While the first version is arriving every instance prolongs the wait. After it has been
    announced only what makes a version does: an image that we did not make. Where several AEs send
    to one study, each one's quiet period counts from its own last instance: a quick one does not
    shorten the pauses of a slow one.
    """
    if progress.version > 0 and not makes_version:
        return progress
    quiet_until = at + quiet_period
    if progress.quiet_until is not None:
        quiet_until = max(quiet_until, progress.quiet_until)
    return Progress(progress.version, progress.pending_since or at, quiet_until)


def version_of_arrival(progress: Progress, *, makes_version: bool) -> int:
    """Return the study version that a new instance belongs to."""
    if progress.version == 0 or makes_version:
        return progress.version + 1
    return progress.version
