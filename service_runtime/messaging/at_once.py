"""Handling several deliveries at the same time, in threads, with room kept for the first queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

_LOG = structlog.get_logger()


@dataclass(frozen=True)
class AtOnce:
    """How many deliveries are handled at the same time."""

    in_all: int
    of_later_queues: int
    """So many of them at most are of another queue than the first: the rest is kept free for it."""


ONE = AtOnce(1, 1)


class Threads:
    """Handles deliveries side by side.

    What handling raises, who asks for room is told: a fault of ours ends the consumer, as it does
    where deliveries are handled one by one, and what was being handled comes again.

    Parameters
    ----------
    at_once
        How many.
    on_free
        Called, by the thread that ends, whenever there is room for one more.
    """

    def __init__(self, at_once: AtOnce, on_free: Callable[[], None]) -> None:
        self._at_once = at_once
        self._on_free = on_free
        self._pool = ThreadPoolExecutor(at_once.in_all, thread_name_prefix="handler")
        self._of_first = 0
        self._of_later = 0
        self._changed = threading.Condition()
        self._failure: Exception | None = None

    def room(self, *, is_first: bool) -> int:
        """Return how many more of the first queue, or of later ones, can be handled now."""
        with self._changed:
            self._require_none_failed()
            return self._room(is_first=is_first)

    @property
    def busy(self) -> bool:
        """Whether anything is being handled."""
        with self._changed:
            return self._of_first + self._of_later > 0

    def handle(self, run: Callable[[], None], *, is_first: bool) -> None:
        """Have a thread run this; there must be room."""
        with self._changed:
            self._count(1, is_first=is_first)
        self._pool.submit(self._run, run, is_first)

    def wait_room(self, timeout_s: float, *, is_first: bool) -> bool:
        """Wait until one more can be handled; tell whether it can."""
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._failure is not None or self._room(is_first=is_first) > 0, timeout_s
            )
            self._require_none_failed()
            return has_room

    def wait_idle(self) -> None:
        """Wait until nothing is being handled."""
        with self._changed:
            self._changed.wait_for(lambda: self._of_first + self._of_later == 0)

    def close(self) -> None:
        """Wait for what is being handled, and end the threads."""
        self._pool.shutdown()
        if self._failure is not None:
            _LOG.error("handling.failed", exc_info=self._failure)

    def _require_none_failed(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _room(self, *, is_first: bool) -> int:
        room = self._at_once.in_all - self._of_first - self._of_later
        return room if is_first else min(room, self._at_once.of_later_queues - self._of_later)

    def _count(self, step: int, *, is_first: bool) -> None:
        if is_first:
            self._of_first += step
        else:
            self._of_later += step
        self._changed.notify_all()

    def _run(self, run: Callable[[], None], is_first: bool) -> None:  # noqa: FBT001 - from a pool
        try:
            run()
        except Exception as error:  # noqa: BLE001 - raised to who asks for room
            self._failure = error
        finally:
            with self._changed:
                self._count(-1, is_first=is_first)
            self._on_free()
