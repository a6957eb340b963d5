"""Consuming straight from the delivery table: no broker, the same promise."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from uuid import uuid4

import structlog

from service_runtime.change_watch import ChangeWatch
from service_runtime.database import Database, DatabaseUnavailable, Transaction
from service_runtime.messaging import backlog, outbox
from service_runtime.messaging.at_once import ONE, AtOnce, Threads
from service_runtime.messaging.consumer import Consumer, Handling, Outcome
from service_runtime.messaging.outbox import Again, Delivery
from service_runtime.process_identity import token_of
from service_runtime.telemetry import log

LEASE_S = 30.0
HANG_EXIT_CODE = 70
"""Of a process that left because a handler did not return; its supervisor starts it again."""

_SUSPICIOUS = 2
"""Taken more often than this without an outcome, a message is not taken together with others."""

_LONGEST_SLEEP_S = 5.0
BRANCH_LOOK_S = 0.25
"""How often to look for what other processes have put into a branch; its own wakes it."""

Gate = Callable[[], float]
"""Tells for how many seconds nothing is to be taken now; 0 where nothing stands in the way."""

_LOG = structlog.get_logger()


class RowEnding:
    """Ends deliveries that are held by a lease on their row."""

    def settle(self, transaction: Transaction, held: Delivery) -> None:
        """Delete the delivery."""
        outbox.settle(transaction, held)

    def retry(self, transaction: Transaction, held: Delivery, again: Again) -> None:
        """Move the delivery to later."""
        outbox.retry(transaction, held, again)


class EmbeddedConsumer:
    """Claims deliveries of its queues, earlier queues first, and handles them.

    Parameters
    ----------
    prefetch
        How many deliveries are claimed at once, where they are handled one by one. 1 where
        handling is long or lanes matter.
    handler_deadline_s
        A handler that has not returned by then hangs: the failure is recorded and the process
        leaves, because a thread cannot be stopped.
    look_s
        How often to look for what other processes have sent; as often as is cheap by default.
    gate
        Asked before something that is due is taken.
    at_once
        How many are handled at the same time; each is then claimed when there is room for it.
    """

    def __init__(  # noqa: PLR0913 - each is a number of its own
        self,
        database: Database,
        handlings: Mapping[str, Handling],
        *,
        prefetch: int,
        handler_deadline_s: float,
        lease_s: float = LEASE_S,
        look_s: float | None = None,
        gate: Gate = lambda: 0,
        at_once: AtOnce = ONE,
    ) -> None:
        self._database = database
        self._queues = tuple(handlings)
        self._consumer = Consumer(database, handlings, RowEnding())
        self._prefetch = prefetch
        self._deadline_s = handler_deadline_s
        self._lease_s = lease_s
        self._look_s = look_s
        self._gate = gate
        self._closed_until_s = 0.0
        self._due_at: float | None = None
        self._token = f"{token_of()}/{uuid4().hex[:12]}"
        self._woken = threading.Event()
        self._holding = False
        self._threads = Threads(at_once, self._woken.set) if at_once.in_all > 1 else None

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set; what is being handled then is finished."""
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(ended,), name="leases", daemon=True)
        keeper.start()
        self._database.on_send(self._woken.set)
        watch = self._database.watch()
        try:
            while not stop.is_set():
                try:
                    # What happened until now, it sees: only what comes later need wake it again.
                    self._woken.clear()
                    watch.changed()
                    if not self._take(stop):
                        self._wait(watch, stop)
                except DatabaseUnavailable as error:
                    _LOG.warning("claim.failed", error=log.describe(error))
                    stop.wait(1.0)
        finally:
            if self._threads is not None:
                self._threads.close()
            watch.close()
            self._database.forget_waker(self._woken.set)
            ended.set()
            keeper.join()

    def _take(self, stop: threading.Event) -> bool:
        if self._threads is None:
            return self._take_and_handle(stop)
        return self._take_side_by_side(stop, self._threads)

    def _take_side_by_side(self, stop: threading.Event, threads: Threads) -> bool:
        first = self._queues[0]
        room = {queue: threads.room(is_first=queue == first) for queue in self._queues}
        claimed = self._claim(room)
        for held in claimed:
            if held.claims > _SUSPICIOUS:
                # It may be the end of this process: the others are to be done before.
                threads.wait_idle()
            threads.handle(partial(self._handle, held, stop), is_first=held.queue == first)
            if held.claims > _SUSPICIOUS:
                threads.wait_idle()
        return bool(claimed)

    def _handle(self, held: Delivery, stop: threading.Event) -> None:
        if self._consumer.handle(held, stop) is Outcome.LOST:
            _LOG.warning("lease.lost")

    def _take_and_handle(self, stop: threading.Event) -> bool:
        claimed = self._claim(dict.fromkeys(self._queues, self._prefetch))
        self._holding = bool(claimed)
        try:
            while claimed and not stop.is_set():
                self._handle(claimed.pop(0), stop)
            return self._holding
        finally:
            self._holding = False
            if claimed:
                with self._database.transaction() as transaction:
                    outbox.give_back(transaction, claimed)

    def _claim(self, rooms: Mapping[str, int]) -> list[Delivery]:
        """Claim what is due: of each queue no more than its room, in all no more than the most."""
        queues = [queue for queue, room in rooms.items() if room > 0]
        due_at = backlog.next_due_by_queue(self._database, queues) if queues else {}
        self._due_at = min(due_at.values(), default=None)
        if self._due_at is None or self._due_at > time.time():
            return []
        queues = [queue for queue in queues if due_at.get(queue, inf) <= time.time()]
        closed_s = self._gate()
        if closed_s > 0:
            self._closed_until_s = time.monotonic() + closed_s
            return []
        claimed: list[Delivery] = []
        # A power cut ends this process too: it may undo the lease.
        with self._database.transaction(durable=False) as transaction:
            for queue in queues:
                room = min(rooms[queue], max(rooms.values()) - len(claimed))
                if room > 0:
                    claimed += outbox.claim(transaction, queue, room, self._token, self._lease_s)
            if any(held.claims > _SUSPICIOUS for held in claimed):
                # Its consumers die of one of these. Taken alone, in random order, only that one's
                # count goes on rising; the others get past it.
                random.shuffle(claimed)
                outbox.give_back(transaction, claimed[1:])
                del claimed[1:]
        return claimed

    def _wait(self, watch: ChangeWatch, stop: threading.Event) -> None:
        # By the clock that is never set back: a sleep must not grow by what the other one loses.
        # When something is due is told between processes, though, which share only the other one.
        now_s = time.monotonic()
        due_in_s = inf if self._due_at is None else self._due_at - time.time()
        until_s = now_s + min(max(due_in_s, self._closed_until_s - now_s), _LONGEST_SLEEP_S)
        while time.monotonic() < until_s and not stop.is_set():
            if self._woken.wait(self._look_s or watch.interval_s) or watch.changed():
                return

    def _keep(self, ended: threading.Event) -> None:
        """Renew leases, and watch for a handler that hangs, until ``ended``."""
        renewed = time.monotonic()
        pause_s = min(1.0, self._lease_s / 6, self._deadline_s / 2)
        while not ended.wait(pause_s):
            current = self._consumer.current
            if current and time.monotonic() - current[1] > self._deadline_s:
                self._leave(current[0])
            holding = self._holding or (self._threads is not None and self._threads.busy)
            if holding and time.monotonic() - renewed > self._lease_s / 3:
                renewed = time.monotonic()
                try:
                    with self._database.transaction() as transaction:
                        outbox.renew(transaction, self._token, self._lease_s)
                except DatabaseUnavailable as error:
                    _LOG.warning("lease.not_renewed", error=log.describe(error))
                except Exception as error:  # noqa: BLE001
                    # This thread alone keeps the leases and notices a handler that hangs.
                    _LOG.exception("lease.not_renewed", exc_info=error)

    def _leave(self, hanging: Delivery) -> None:
        _LOG.error("handler.hangs", queue=hanging.queue, deadline_s=self._deadline_s)
        give_up = threading.Event()
        give_up.set()
        reason = f"the handler did not return within {self._deadline_s:g} s"
        self._consumer.fail(hanging, reason, give_up)
        os._exit(HANG_EXIT_CODE)
