"""A parent that forks processes, forks again those that die, and has all of them drain at its end.

The parent has no threads and no connections, so that forking at any time is safe. The children
watch one pipe whose other end only the parent holds: it closes when the parent wants them to drain,
and also when the parent is killed.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

log = structlog.get_logger()

Body = Callable[[int], None]
"""The work of one process; it ends when the descriptor it is given becomes readable."""

_SHORTEST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_STEADY_S = 10.0
_EXIT_CODE_OF_FAILURE = 70


class PreFork:
    """Keeps one process running for each body."""

    def __init__(
        self,
        bodies: Sequence[Body],
        *,
        on_death: Callable[[int], None],
        on_stop: Callable[[], None],
        drain_timeout_s: float,
    ) -> None:
        self._bodies = bodies
        self._on_death = on_death
        self._on_stop = on_stop
        self._drain_timeout_s = drain_timeout_s
        self._wake, self._awake = os.pipe()
        self._running: dict[int, tuple[int, float]] = {}
        self._due: dict[int, float] = dict.fromkeys(range(len(bodies)), 0.0)
        self._delay_s = [_SHORTEST_DELAY_S] * len(bodies)

    def run(self, stop: Sequence[int]) -> None:
        """Run until one of ``stop`` becomes readable; return when every process has ended."""
        changed, on_change = os.pipe()
        os.set_blocking(on_change, False)
        os.set_blocking(changed, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(on_change, warn_on_full_buffer=False)
        poll = select.poll()
        for descriptor in stop:
            poll.register(descriptor, select.POLLIN)
        poll.register(changed, select.POLLIN)
        while True:
            self._start_due()
            ready = dict(poll.poll(self._next_due_ms()))
            with suppress(BlockingIOError):
                os.read(changed, 4096)
            self._reap()
            if not ready.keys().isdisjoint(stop):
                break
        self._on_stop()
        self._drain()
        signal.set_wakeup_fd(-1)

    def _next_due_ms(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - time.monotonic()) * 1000 + 1

    def _start_due(self) -> None:
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            process_id = os.fork()
            if not process_id:
                self._become(number)
            self._running[process_id] = (number, now)

    def _become(self, number: int) -> None:
        """Be the child; never return."""
        code = _EXIT_CODE_OF_FAILURE
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A signal to the whole group must not kill what the parent wants to drain.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.close(self._awake)
            self._bodies[number](self._wake)
            code = 0
        except BaseException:
            log.exception("process.failed")
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._running:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if not process_id:
                return
            number, started = self._running.pop(process_id)
            log.warning("process.ended", child=number, exit_code=os.waitstatus_to_exitcode(status))
            self._on_death(number)
            now = time.monotonic()
            if now - started > _STEADY_S:
                self._delay_s[number] = _SHORTEST_DELAY_S
            self._due[number] = now + self._delay_s[number]
            self._delay_s[number] = min(2 * self._delay_s[number], _LONGEST_DELAY_S)

    def _drain(self) -> None:
        os.close(self._awake)
        deadline = time.monotonic() + self._drain_timeout_s
        while self._running and time.monotonic() < deadline:
            process_id, _ = os.waitpid(-1, os.WNOHANG)
            if process_id:
                self._running.pop(process_id, None)
            else:
                time.sleep(0.01)
        for process_id in self._running:
            log.warning("process.killed", process_id=process_id)
            os.kill(process_id, signal.SIGKILL)
            os.waitpid(process_id, 0)
