"""The hours of the day at which a destination may be sent to. Pure."""

from datetime import datetime, time, timedelta, tzinfo

from message_contracts.destination import DailyWindow


def opens_in_s(window: DailyWindow | None, now: datetime, zone: tzinfo) -> float:
    """Return after how many seconds the window opens; 0 while it is open.

    The begin belongs to it and the end does not. Hours are the site's wall clock: on the day on
    which clocks change, a window may be an hour longer or shorter.
    """
    if window is None:
        return 0
    begin, end = (time.fromisoformat(part) for part in window.split("-"))
    local = now.astimezone(zone)
    of_day = local.time()
    is_open = begin <= of_day < end if begin < end else of_day >= begin or of_day < end
    if is_open:
        return 0
    opening = datetime.combine(local.date(), begin, zone)
    if opening <= local:
        opening = datetime.combine(local.date() + timedelta(days=1), begin, zone)
    # A time that is skipped in spring may lie just behind us: then it is open a moment from now.
    return max((opening - now).total_seconds(), 1)
