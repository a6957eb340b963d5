"""What a receiving process has kept, on its way into the index.

A C-STORE is answered when the instance is durable under its name: all that its row is made of can
be read from there. The row follows, in a group with whatever else has come meanwhile: a transaction
costs nearly the same for one as for many. The groups of all processes leave at the same moments, so
that the indexing process enters them together.

Who cannot rely on that is entered first and answered then: what had its name already, and may be on
its way out, and everything while the index does not keep up.
"""

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

import structlog

from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome
from dicom_listener.index import Answer, Entry, OwnIndex
from dicom_listener.index_messages import MOST_BYTES, answers_of, group_message
from dicom_listener.open_associations import OpenAssociation
from service_runtime.database import DatabaseUnavailable
from service_runtime.errors import PermanentError
from service_runtime.process import EXIT_FAILED

log = structlog.get_logger()

_TICK_S = 0.1
"""At its multiples the groups of all processes leave."""
_GROUP = 64
_MOST_WAITING = 1024
_LATE_S = 2.0
"""While somebody who has been answered waits for longer, others are entered first."""
_ANSWER_S = 60
_ATTEMPTS = 2
_SHORTEST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
"""After an error; who has to be entered first does not wait for its end."""
_ENDING_S = 5.0
_DRAINING_S = 5.0
"""Both together, at the end of a process, are less than its parent waits for it."""

Follow = Callable[[Arrival, Answer], None]
"""Does what follows from what became of an arrival that had been answered for.

Whatever it raises but `PermanentError`: then it is called again, later. While it works nothing else
of its process is entered.
"""


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    since: float
    promise: "Future[Outcome | None] | None" = None
    """Of what becomes of it, where somebody waits for that."""


class IndexQueue:
    """Arrivals of one process on their way to the indexing process; a thread takes them there.

    As a context it runs, and at its end waits until all is entered. ``own`` enters what is too
    large for a message.
    """

    def __init__(
        self, address: bytes, own: OwnIndex, follow: Follow, now: Callable[[], datetime]
    ) -> None:
        self._address = address
        self._own = own
        self._follow = follow
        self._now = now
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._under_way: Sequence[_Waiting] = ()
        self._is_urgent = False
        self._failures = 0
        """In a row."""
        self._unfollowed: list[tuple[Arrival, Answer]] = []
        self._follow_at = 0.0
        self._follow_pause_s = _SHORTEST_PAUSE_S
        self._give_up_at: float | None = None
        """When what is left is left in the store; only at the end."""
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._work, name="index queue", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait until all is entered. Where that takes too long the store has what is left."""
        with self._changed:
            self._give_up_at = time.monotonic() + _DRAINING_S
            self._changed.notify()
        self._thread.join(_DRAINING_S + _SHORTEST_PAUSE_S)
        if self._thread.is_alive():
            log.error("index.given_up")

    def take(self, arrival: Arrival) -> bool:
        """Take an arrival to be entered soon; return whether it was taken, see `Index.take`."""
        now = time.monotonic()
        with self._changed:
            if self._failures or len(self._waiting) >= _MOST_WAITING or self._is_late(now):
                return False
            self._waiting.append(_Waiting(arrival, now))
            if len(self._waiting) == 1:
                self._changed.notify()
        return True

    def add(self, arrival: Arrival) -> Outcome:
        """Have an arrival entered; see `Index.add`.

        Raises
        ------
        DatabaseUnavailable
            It is not entered, or may not be; the sender has to send again.
        NotEntered
            The database refuses it.
        """
        try:
            outcome = self._put(arrival).result(_ANSWER_S)
        except TimeoutError:
            raise DatabaseUnavailable("index: no answer in time") from None
        assert outcome is not None  # noqa: S101 - it has arrived
        return outcome

    def end(self, association: OpenAssociation) -> None:
        """Have an association that has ended hold no study open; see `Index.end`."""
        with suppress(TimeoutError):
            self._put(association).result(_ENDING_S)

    def _put(self, entry: Entry) -> "Future[Outcome | None]":
        promise: Future[Outcome | None] = Future()
        with self._changed:
            self._waiting.append(_Waiting(entry, time.monotonic(), promise))
            self._is_urgent = True
            self._changed.notify()
        return promise

    def _is_late(self, now: float) -> bool:
        oldest = self._under_way or self._waiting
        return bool(oldest) and now - oldest[0].since > _LATE_S

    def _work(self) -> None:
        try:
            # At once: that process then enters what one that ran before this has left in the store.
            try:
                self._connect()
            except OSError:
                self._close()
            while self._goes_on():
                if group := self._next_group():
                    self._settle(group, self._entered([each.entry for each in group]))
                self._follow_again()
            self._close()
        except Exception:  # noqa: BLE001 - whatever it is ends the process
            # What was taken lies in the store, and is entered from there.
            try:
                log.exception("index.queue_failed")
            finally:
                # Also where nothing can be logged any more.
                os._exit(EXIT_FAILED)

    def _goes_on(self) -> bool:
        """Whether the process goes on, or something is left that can still be entered."""
        with self._changed:
            if self._give_up_at is None:
                return True
            is_given_up = bool(self._waiting) and self._give_up_at < time.monotonic()
            if is_given_up:
                log.error("index.given_up", count=len(self._waiting))
            return bool(self._waiting) and not is_given_up

    def _next_group(self) -> list[_Waiting]:
        """Wait until a group is to leave; return none where something else is to be done."""
        with self._changed:
            self._changed.wait_for(self._has_work, self._until_follow_s())
            if not self._waiting:
                return []
            self._changed.wait_for(self._is_to_leave_now, self._until_next_s())
            group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
            self._is_urgent = any(each.promise for each in self._waiting)
            self._under_way = group
        late = time.monotonic() - _LATE_S
        for each in group:
            if each.since < late and isinstance(each.entry, Arrival):
                # Received now, in effect: its study waits for others that come as late.
                each.entry = each.entry._replace(at=self._now())
        return group

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._give_up_at is not None

    def _until_next_s(self) -> float:
        """Return how long it is until the next group leaves by itself."""
        if not self._failures:
            return _TICK_S - time.monotonic() % _TICK_S
        growing_s: float = _SHORTEST_PAUSE_S * 2.0 ** min(self._failures - 1, 10)
        left_s = _DRAINING_S if self._give_up_at is None else self._give_up_at - time.monotonic()
        return max(0.0, min(growing_s, _LONGEST_PAUSE_S, left_s))

    def _is_to_leave_now(self) -> bool:
        is_full = self._give_up_at is not None or len(self._waiting) >= _GROUP
        return self._is_urgent or (is_full and not self._failures)

    def _settle(self, group: Sequence[_Waiting], answers: Sequence[Answer]) -> None:
        """Tell those who wait what became of theirs; keep what is to be entered once more."""
        again: list[_Waiting] = []
        for each, answer in zip(group, answers, strict=True):
            _hold_open(each.entry, answer)
            if each.promise is not None:
                _fulfil(each.promise, each.entry, answer)
            if isinstance(each.entry, OpenAssociation):
                # Told once more after what may have come over it.
                is_done = not again and not isinstance(answer, DatabaseUnavailable)
            elif each.promise is not None:
                is_done = True
            elif is_done := not isinstance(answer, DatabaseUnavailable):
                self._follow_up(each.entry, answer)
            if not is_done:
                again.append(_Waiting(each.entry, each.since))
        # One that is refused says nothing of others, unless the next is refused too.
        is_troubled = bool(again) or any(isinstance(answer, Exception) for answer in answers)
        if is_troubled != bool(self._failures):
            log.warning("index.behind" if is_troubled else "index.caught_up", count=len(again))
        with self._changed:
            self._failures = self._failures + 1 if is_troubled else 0
            if len(again) >= _GROUP:
                # A whole group goes first that cannot be entered: nobody is to wait behind it.
                self._waiting = deque(_without_promises(self._waiting, _failure(answers)))
                self._is_urgent = False
            self._waiting.extendleft(reversed(again))
            self._under_way = ()

    def _follow_up(self, arrival: Arrival, answer: Answer) -> None:
        try:
            self._follow(arrival, answer)
        except PermanentError as error:
            # Its file is gone, or damaged: nobody could read it.
            log.exception("instance.not_followed_up", key=arrival.kept.key, exc_info=error)
        except Exception as error:
            log.warning("instance.not_followed_up", key=arrival.kept.key, exc_info=error)
            if not self._unfollowed:
                self._follow_at = time.monotonic() + self._follow_pause_s
            self._unfollowed.append((arrival, answer))

    def _follow_again(self) -> None:
        """Try once more what could not follow."""
        if not self._unfollowed or time.monotonic() < self._follow_at:
            return
        unfollowed, self._unfollowed = self._unfollowed, []
        self._follow_pause_s = min(2 * self._follow_pause_s, _LONGEST_PAUSE_S)
        for arrival, answer in unfollowed:
            self._follow_up(arrival, answer)
        if not self._unfollowed:
            self._follow_pause_s = _SHORTEST_PAUSE_S

    def _until_follow_s(self) -> float | None:
        return max(0.0, self._follow_at - time.monotonic()) if self._unfollowed else None

    def _entered(self, entries: Sequence[Entry]) -> Sequence[Answer]:
        """Have a group entered; return what became of each."""
        message = group_message(entries)
        if len(message) > MOST_BYTES:
            if len(entries) == 1:
                return self._own.enter(lambda: entries)
            half = len(entries) // 2
            return [*self._entered(entries[:half]), *self._entered(entries[half:])]
        try:
            return answers_of(self._ask(message))
        except DatabaseUnavailable as error:
            return [error] * len(entries)

    def _ask(self, message: bytes) -> bytes:
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                connection = self._connection or self._connect()
                connection.send(message)
                if answer := connection.recv(MOST_BYTES):
                    return answer
                reason = "index: its process has ended"
            except TimeoutError:
                # It lives, and may yet enter it: asked again it would only have more to do.
                self._close()
                raise DatabaseUnavailable("index: no answer in time") from None
            except OSError as error:
                reason = f"index: {type(error).__name__}"
            self._close()
            log.warning("index.asked_again", attempt=attempt, reason=reason)
        raise DatabaseUnavailable(reason)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection = connection
        connection.settimeout(_ANSWER_S)
        connection.connect(self._address)
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _hold_open(entry: Entry, answer: Answer) -> None:
    """Note which study an association holds open; where that is not known it is told anew."""
    if isinstance(entry, Arrival) and entry.association is not None:
        is_entered = isinstance(answer, Outcome)
        entry.association.study_instance_uid = entry.header.study_instance_uid if is_entered else ""


def _failure(answers: Iterable[Answer]) -> DatabaseUnavailable:
    """Return why some of a group are not entered."""
    return next(answer for answer in answers if isinstance(answer, DatabaseUnavailable))


def _without_promises(
    waiting: Iterable[_Waiting], failure: DatabaseUnavailable
) -> Iterator[_Waiting]:
    """Tell those who wait of a failure; give what is to be entered all the same."""
    for each in waiting:
        if each.promise is not None:
            _fulfil(each.promise, each.entry, failure)
        if each.promise is None or isinstance(each.entry, OpenAssociation):
            yield _Waiting(each.entry, each.since)


def _fulfil(promise: "Future[Outcome | None]", entry: Entry, answer: Answer) -> None:
    if isinstance(answer, Exception) and isinstance(entry, Arrival):
        promise.set_exception(answer)
    else:
        promise.set_result(None if isinstance(answer, Exception) else answer)
