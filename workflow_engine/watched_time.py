"""The time over which models are watched."""

from datetime import UTC, datetime, timedelta

from service_runtime.errors import PermanentError

WINDOW = timedelta(days=30)

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 1, 1, tzinfo=UTC)
"""Later there are times with a zone that have none in UTC."""


class NoSuchTime(PermanentError):
    """Nothing can be counted in the time asked for; says which end of it is to be changed."""


def watched_time(
    since: datetime | None, until: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    """Return from when on and before when to count: where nothing is said, the last 30 days.

    Raises
    ------
    NoSuchTime
        ``since`` is not before ``until``, or one of them is of a year before 1970 or after 9998.
    """
    for name, at in (("since", since), ("until", until)):
        if at is not None and not _EARLIEST <= at < _END:
            raise NoSuchTime(f"{name} must be of the years 1970 to 9998")
    until = until or now
    since = since or until - WINDOW
    if since >= until:
        raise NoSuchTime("since must be before until")
    return since, until
