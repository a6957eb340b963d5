"""Which process this is: its number alone is given to another once it is gone."""

from __future__ import annotations

import os
from pathlib import Path

_START_TIME = 21
"""Field 22 of ``/proc/PID/stat``; the two before the state are cut off with the name."""


def token_of(process_id: int | None = None) -> str:
    """Return process id and start time of a living process, by default this one.

    Raises
    ------
    ProcessLookupError
        There is no such process.
    """
    number = os.getpid() if process_id is None else process_id
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        if process_id is None or _alive(number):
            # No /proc on this system: the number is all there is.
            return f"{number}-0"
        raise ProcessLookupError(number) from None
    # The program's name may hold spaces and parentheses; what follows the last one may not.
    fields = stat.rpartition(")")[2].split()
    return f"{number}-{fields[_START_TIME - 2]}"


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
