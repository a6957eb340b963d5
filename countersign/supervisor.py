"""Child processes that are started, started again when they end, and stopped together."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from service_runtime.process_identity import token_of

SUPERVISOR_FD = "COUNTERSIGN_SUPERVISOR_FD"
"""Names the descriptor that comes to its end when the supervisor dies, however it dies."""

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
GRACE_S = 20.0
"""From SIGTERM to SIGKILL."""

_STEADY_S = 30.0
"""A child that has run for so long starts again at once when it ends."""

_TICK_S = 0.25
_LOG_SIZE_BYTES = 20 * 1024 * 1024


@dataclass
class Child:
    """One program, and how often it has had to be started again."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    token: str = ""
    """Process id and start time: what its leases begin with."""

    started_at: float = 0
    start_at: float = 0
    delay_s: float = FIRST_DELAY_S


@dataclass(frozen=True)
class Ended:
    """A child that has ended by itself."""

    child: Child
    token: str
    exit_code: int
    """Negative for the signal that ended it."""

    @property
    def how(self) -> str:
        """In words: the exit code or the signal's name."""
        if self.exit_code < 0:
            return f"was ended by {signal.Signals(-self.exit_code).name}"
        return f"ended with exit code {self.exit_code}"


@dataclass
class Supervisor:
    """Runs children until it is told to stop by SIGTERM, SIGINT or SIGHUP."""

    children: list[Child]
    environment: Mapping[str, str]
    on_end: Callable[[Ended], None]
    """Called before the child is started again; may call ``stop``."""

    on_tick: Callable[[], None]
    """Called a few times a second; must not take long."""

    signals: int = 0
    stopping: bool = False
    _alive: tuple[int, int] = field(default_factory=os.pipe)
    """Nobody writes into this pipe: children see its end when the supervisor is gone."""

    def run(self) -> None:
        """Start every child, watch them, and return when all have ended."""
        with _woken_by_signals(self._told_to_stop) as wake:
            while not self.stopping:
                self._start_due()
                select.select([wake], [], [], _TICK_S)
                _drain(wake)
                self._reap()
                if not self.stopping:
                    self.on_tick()
                    self._rotate_logs()
            self._end_all(wake)

    def stop(self) -> None:
        """Have ``run`` stop the children and return."""
        self.stopping = True

    def _told_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.signals += 1
        self.stopping = True

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.process is None and child.start_at <= now:
                self._start(child)

    def _start(self, child: Child) -> None:
        read_end = self._alive[0]
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(  # noqa: S603 - our own modules
                list(child.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, SUPERVISOR_FD: str(read_end)},
                pass_fds=(read_end,),
            )
        child.started_at = time.monotonic()
        with suppress(ProcessLookupError):
            child.token = token_of(child.process.pid)

    def _reap(self) -> None:
        for child in self.children:
            if child.process is None or (exit_code := child.process.poll()) is None:
                continue
            now = time.monotonic()
            if now - child.started_at > _STEADY_S:
                child.delay_s = FIRST_DELAY_S
            child.process = None
            child.start_at = now + child.delay_s
            self.on_end(Ended(child, child.token, exit_code))
            child.delay_s = min(child.delay_s * 2, LONGEST_DELAY_S)

    def _rotate_logs(self) -> None:
        for child in self.children:
            rotate(child.log, _LOG_SIZE_BYTES)

    def _end_all(self, wake: int) -> None:
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            process.terminate()
        told = self.signals
        deadline = time.monotonic() + GRACE_S
        while any(process.poll() is None for process in running):
            # Somebody who asks twice does not want to wait.
            if time.monotonic() > deadline or self.signals > told:
                break
            select.select([wake], [], [], _TICK_S)
            _drain(wake)
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()


def python_module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with the interpreter that runs us."""
    return [sys.executable, "-m", name, *arguments]


def rotate(log: Path, size_bytes: int) -> None:
    """Move what a log holds to ``NAME.1`` when it is larger than this; its writer goes on.

    The writer appends, so the file is copied and emptied. A line that is written between the two
    is lost; at this size that is rare, and a log that fills the disk is worse.
    """
    try:
        if log.stat().st_size <= size_bytes:
            return
    except FileNotFoundError:
        return
    log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)


@contextmanager
def _woken_by_signals(stop: Callable[[int, FrameType | None], None]) -> Iterator[int]:
    """Give a descriptor that is readable after a signal, and have ``stop`` called by some."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    stops = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in stops}
    # A handler must be there for the descriptor to be written to.
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    wakeup_before = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


def _drain(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while os.read(descriptor, 512):
            pass
