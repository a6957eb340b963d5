"""When a study began, as far as its data set says so (PS3.3 §C.12.1.1.8 for the offset)."""

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache

_DATE = re.compile(r"(\d{4})[.:-]?(\d{2})[.:-]?(\d{2})")
_TIME = re.compile(r"(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.(\d{1,6}))?)?)?")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_LARGEST_OFFSET = timedelta(hours=14)


@lru_cache(maxsize=256)
def study_start(study_date: str, study_time: str, timezone_offset: str, zone: tzinfo) -> str:
    """Return the start in ISO 8601: date, time and offset, or a date only, or nothing.

    An absent or malformed time makes a date only, never an invented midnight. Without a valid
    (0008,0201) the time is of ``zone``.
    """
    day = _date(study_date)
    if day is None:
        return ""
    moment = _time(study_time)
    if moment is None:
        return day.isoformat()
    start = datetime.combine(day, moment, tzinfo=_offset(timezone_offset) or zone)
    try:
        return start.isoformat(timespec="seconds")
    except (OverflowError, ValueError):
        return day.isoformat()


def _date(text: str) -> date | None:
    """Value of a DA (PS3.5 §6.2), or of ACR-NEMA's with points."""
    match = _DATE.fullmatch(text.strip())
    try:
        return date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        return None


def _time(text: str) -> time | None:
    """Value of a TM; a leap second is read as the one before it."""
    match = _TIME.fullmatch(text.strip())
    if not match:
        return None
    hour, minute, second, fraction = match.groups()
    try:
        return time(
            int(hour),
            int(minute or 0),
            min(int(second or 0), 59),
            int((fraction or "0").ljust(6, "0")),
        )
    except ValueError:
        return None


def _offset(text: str) -> tzinfo | None:
    """Value of (0008,0201), or ``None``."""
    match = _OFFSET.fullmatch(text.strip())
    if not match:
        return None
    sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    if offset > _LARGEST_OFFSET or int(minutes) >= 60:  # noqa: PLR2004 - minutes of an hour
        return None
    return timezone(-offset if sign == "-" else offset) if offset else UTC
