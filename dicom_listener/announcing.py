"""The process that tells when studies are complete. All its state is in the database."""

import select
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from dicom_listener.completion import announce_quiet
from service_runtime.database import Database
from service_runtime.errors import TransientError

log = structlog.get_logger()

_SHORTEST_WAIT_S = 0.02
# Clocks jump: a wait is never long.
_LONGEST_WAIT_S = 5.0
_WAIT_AFTER_ERROR_S = 1.0


def announce(
    database: Database, quiet_period: timedelta, wake: int, now: Callable[[], datetime]
) -> None:
    """Announce complete studies until ``wake`` becomes readable."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    wait_s = 0.0
    while not poll.poll(max(_SHORTEST_WAIT_S, min(wait_s, _LONGEST_WAIT_S)) * 1000):
        try:
            wait_s = announce_quiet(database, now(), quiet_period)
        except TransientError as error:
            log.warning("announcing.delayed", exc_info=error)
            wait_s = _WAIT_AFTER_ERROR_S
