"""Messages that the broker gave us and that wait to be handled: those of earlier queues first."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_NEXT_OF_LANE_S = 0.05


@dataclass(frozen=True)
class Received:
    """A message that the broker gave us and that we have not yet acknowledged."""

    queue: str
    message_id: str
    routing_key: str
    body: bytes
    attempt: int
    delivery_count: int
    """How often it was given to somebody before, without an acknowledgment."""

    death: str | None
    """Why the broker gave it up; ``None`` for a message in its ordinary queue."""

    tag: int
    channel: Any = field(repr=False)


class Lanes:
    """Takes messages from the thread of the network to the one that handles them."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._sequence = itertools.count()
        self._waiting: list[tuple[int, float, int, Received]] = []
        self._arrived = threading.Condition()

    def order(self, queues: Sequence[str]) -> None:
        """Say which queues there are, the one to be read first before the others."""
        self._place = {name: place for place, name in enumerate(queues)}

    def put(self, lane: str, received: Received) -> None:
        """Have a message wait in the lane of the queue that the broker has it in."""
        with self._arrived:
            # Some consumer may have died of one that comes again: in random order the others
            # get past it before they too have come too often.
            turn: float = next(self._sequence)
            if received.delivery_count:
                turn = random.random() - 1  # noqa: S311
            heapq.heappush(self._waiting, (self._place[lane], turn, received.tag, received))
            self._arrived.notify()

    def take(
        self,
        timeout_s: float,
        after: Received | None = None,
        only_first: Callable[[], bool] = lambda: False,
    ) -> Received | None:
        """Return a message of the first queue that has one; ``None`` after ``timeout_s``.

        While ``only_first`` says so, later queues wait; ``look_again`` has it asked anew.
        ``after`` is the message just acknowledged: the broker gives the next one of its queue only
        now, and a later queue waits a moment for it. Otherwise lanes would take turns.
        """
        with self._arrived:
            if after is not None:
                place = self._place[after.queue]
                self._arrived.wait_for(
                    lambda: bool(self._waiting) and self._waiting[0][0] <= place, _NEXT_OF_LANE_S
                )
            if not self._arrived.wait_for(lambda: self._has_one(only_first), timeout_s):
                return None
            return heapq.heappop(self._waiting)[3]

    def look_again(self) -> None:
        """Tell whoever takes that there may be room for a message of a later queue."""
        with self._arrived:
            self._arrived.notify_all()

    def _has_one(self, only_first: Callable[[], bool]) -> bool:
        if not self._waiting:
            return False
        return self._waiting[0][0] == 0 or not only_first()

    def clear(self) -> None:
        """Forget all that waits: the broker gives it to somebody again."""
        with self._arrived:
            self._waiting.clear()
