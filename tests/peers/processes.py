"""Start, stop and kill programs for a test, leaving none of them behind."""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import pytest

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
PATIENCE_S = 120
"""How long a test waits for what should come soon: it costs nothing when it comes soon."""
# Below the range from which the kernel takes ports for outgoing connections.
_FIRST_PORT, _LAST_PORT = 15_000, 32_000
_WORKERS = 8
_handed_out: set[int] = set()


class PeerFailed(Exception):
    """A server did not come up, or did not do what a test needs of it in time."""


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on and that was not returned before.

    Processes that test side by side take theirs from different ranges: a port is listened on only
    later, and not while its server is stopped.
    """
    ports = _ports_of(os.environ.get("PYTEST_XDIST_WORKER"))
    for _ in range(10_000):
        port = secrets.choice(ports)
        if port in _handed_out:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            _handed_out.add(port)
            return port
    reason = "no free port on loopback"
    raise PeerFailed(reason)


def _ports_of(worker: str | None) -> range:
    """Return the ports of one of pytest-xdist's workers, ``gw0`` and so on, or all."""
    if worker is None:
        return range(_FIRST_PORT, _LAST_PORT)
    number = int(worker.removeprefix("gw")) % _WORKERS
    return range(_FIRST_PORT + number, _LAST_PORT, _WORKERS)


def accepts_connections(port: int) -> bool:
    """Return whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def wait_until(condition: Callable[[], T], *, timeout_s: float = PATIENCE_S, what: str) -> T:
    """Ask again and again until ``condition`` returns something true, and return that.

    Raises
    ------
    PeerFailed
        It did not within ``timeout_s``; the message says ``what`` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            reason = f"{what}: not within {timeout_s:g} s"
            raise PeerFailed(reason)
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)


def is_alive(process_id: int) -> bool:
    """Return whether a process runs. One that has ended and was not yet reaped does not."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def find_program(name: str) -> Path | None:
    """Return the program of this name on PATH."""
    found = shutil.which(name)
    return None if found is None else Path(found)


def newest(pattern: str) -> Path | None:
    """Return the last, by version number, of the files that an absolute glob pattern finds."""

    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", str(path))]

    return max(Path("/").glob(pattern.removeprefix("/")), key=version, default=None)


def require(program: Path | None, name: str, package: str) -> Path:
    """Return the program. Without it, skip the test with the reason; in CI, fail it."""
    if program is not None:
        return program
    reason = f"{name} is not installed (Debian package: {package}; `make test` installs it)"
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def private_folder(prefix: str, owner: str | None = None) -> Path:
    """Make a folder that is removed when this process ends, owned by a user of the system."""
    folder = Path(tempfile.mkdtemp(prefix=f"countersign-{prefix}-"))
    if owner is not None:
        shutil.chown(folder, owner)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class ServerProcess:
    """One program in a session of its own, its output in ``log``.

    The kernel kills it when the process that started it dies, however that dies, and
    the interpreter's exit kills what is left of its group. Start it from a thread that
    lives as long as it is needed: the kernel watches the thread.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self.environment = dict(os.environ if environment is None else environment)
        self.user = user
        self.stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; the program must have been started."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def is_running(self) -> bool:
        """Return whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it. Its output is appended to ``log``."""
        assert not self.is_running(), "already running"
        command = self.command
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
                cwd=self.log.parent,
                start_new_session=True,
            )
        atexit.register(self.kill)

    def wait_until_ready(self, condition: Callable[[], T], *, timeout_s: float = PATIENCE_S) -> T:
        """Wait for ``condition``; fail at once, with the log, when the program ends instead."""

        def ready_or_dead() -> T | None:
            if not self.is_running():
                reason = f"{self.command[0]} ended with {self.returncode}:\n{self.log_tail()}"
                raise PeerFailed(reason)
            return condition() or None

        try:
            answer = wait_until(ready_or_dead, timeout_s=timeout_s, what=f"{self.command[0]} ready")
        except PeerFailed as error:
            self.kill()
            raise PeerFailed(f"{error}\n{self.log_tail()}") from None
        assert answer is not None
        return answer

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone, not to its children."""
        os.kill(self.pid, number)

    def stop(self, *, timeout_s: float = PATIENCE_S) -> int:
        """Ask it to end, wait, and return its exit code; kill it when it does not."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self.signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()
        return self._process.returncode

    def kill(self) -> None:
        """Kill it and every process of its group, as a power cut would, and wait for the end."""
        atexit.unregister(self.kill)
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of what it printed."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


class Peer(ABC):
    """A server that a test may stop, kill and start again; a context manager.

    A subclass starts its programs in ``start`` and lists them in ``processes``, in the
    order in which they are started.
    """

    processes: list[ServerProcess]

    @abstractmethod
    def start(self) -> None:
        """Start it on the ports that it has had before, and return when it answers."""

    def stop(self) -> None:
        """End it in order."""
        for process in reversed(self.processes):
            process.stop()

    def kill(self) -> None:
        """End it without warning."""
        for process in reversed(self.processes):
            process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            for process in self.processes:
                sys.stderr.write(f"--- {process.command[0]}\n{process.log_tail()}\n")
        self.kill()
