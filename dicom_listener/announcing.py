"""Has the announcer look whenever time or a change may have completed a study."""

import select
import time
from collections.abc import Callable
from datetime import datetime

import structlog

from dicom_listener import open_associations
from dicom_listener.announcer import Announcer
from service_runtime.database import Database, DatabaseUnavailable
from service_runtime.errors import TransientError

log = structlog.get_logger()

_STEP_S = 0.05
_SHORTEST_WAIT_S = 0.005
_AGAIN_S = 0.5
"""However much is committed, it looks no more often for that."""
_REST = 10
"""Nor sooner than after this many times as long as looking took."""
_LONGEST_WAIT_S = 5.0
"""Clocks jump: a wait is never long."""
_WAIT_AFTER_ERROR_S = 1.0


def announce(
    database: Database,
    announcer: Announcer,
    wake: int,
    now: Callable[[], datetime],
    recover: Callable[[], object],
) -> None:
    """Announce complete studies until ``wake`` becomes readable.

    First ``recover`` has everything entered that belongs to them.
    """
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    watch = database.watch()
    again = due = 0.0
    is_first = True
    try:
        while not poll.poll(1000 * _wait_s(due - time.monotonic())):
            moment = time.monotonic()
            if moment < due and not (moment >= again and watch.changed()):
                continue
            try:
                if is_first:
                    _all_there(recover)
                    open_associations.forget_dead(database, now())
                    is_first = False
                wait_s = announcer.look(now())
            except TransientError as error:
                log.warning("announcing.delayed", exc_info=error)
                wait_s = _WAIT_AFTER_ERROR_S
            looked = time.monotonic()
            due = looked + min(wait_s, _LONGEST_WAIT_S)
            again = looked + max(_AGAIN_S, _REST * (looked - moment))
    finally:
        watch.close()


def _all_there(recover: Callable[[], object]) -> None:
    try:
        recover()
    except DatabaseUnavailable:
        raise
    except Exception:
        # One file that cannot be read keeps no study from being announced.
        log.exception("recovering.failed")


def _wait_s(until_due_s: float) -> float:
    return min(max(until_due_s, _SHORTEST_WAIT_S), _STEP_S)
