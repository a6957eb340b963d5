"""Real child processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from countersign.supervisor import GRACE_S, Child, Ended, Supervisor, rotate
from tests.peers.processes import wait_until

# Says that it is there, and leaves when told to, or when its supervisor is gone.
WELL_BEHAVED = """
import os, select, signal, sys
stop, wake = os.pipe()
signal.signal(signal.SIGTERM, lambda *_: os.write(wake, b"x"))
print(os.getpid(), flush=True)
select.select([stop, int(os.environ["COUNTERSIGN_SUPERVISOR_FD"])], [], [])
print("drained", flush=True)
"""
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""


def a_child(folder: Path, code: str, name: str = "child") -> Child:
    return Child(name, [sys.executable, "-c", code], folder / f"{name}.log")


def pids_in(log: Path) -> list[int]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line) for line in lines if line.isdigit()]


def running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


class Script:
    """What the supervisor is to do at each tick, in the test's own thread: signals need it."""

    def __init__(self, children: list[Child]) -> None:
        self.ended: list[Ended] = []
        self.steps: Iterator[None] = iter(())
        self.supervisor = Supervisor(
            children, dict(os.environ), on_end=self.ended.append, on_tick=self._tick
        )

    def _tick(self) -> None:
        if next(self.steps, "done") == "done":
            self.supervisor.stop()


def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    child = a_child(tmp_path, WELL_BEHAVED)
    script = Script([child])

    def steps() -> Iterator[None]:
        while not pids_in(child.log):
            yield
        os.kill(pids_in(child.log)[0], signal.SIGKILL)
        while len(pids_in(child.log)) < 2:
            yield

    script.steps = steps()
    script.supervisor.run()

    assert [ended.how for ended in script.ended] == ["was ended by SIGKILL"]
    assert script.ended[0].token.startswith(f"{pids_in(child.log)[0]}-")
    assert child.log.read_text().splitlines()[-1] == "drained"


def test_a_child_that_keeps_ending_is_started_ever_more_slowly(tmp_path: Path) -> None:
    child = a_child(tmp_path, "raise SystemExit(3)")
    script = Script([child])
    delays: list[float] = []

    def steps() -> Iterator[None]:
        while len(script.ended) < 4:
            if len(script.ended) > len(delays):
                delays.append(child.delay_s)
            yield

    script.steps = steps()
    script.supervisor.run()

    assert delays == sorted(delays)
    assert delays[0] < delays[-1]
    assert script.ended[0].how == "ended with exit code 3"


def test_sigterm_ends_every_child_in_order(tmp_path: Path) -> None:
    children = [a_child(tmp_path, WELL_BEHAVED, name) for name in ("one", "two")]
    script = Script(children)

    def steps() -> Iterator[None]:
        while not all(pids_in(child.log) for child in children):
            yield
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            yield

    script.steps = steps()
    before = signal.getsignal(signal.SIGTERM)
    script.supervisor.run()

    assert [child.log.read_text().splitlines()[-1] for child in children] == ["drained"] * 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_child_that_does_not_listen_is_killed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("countersign.supervisor.GRACE_S", 0.5)
    child = a_child(tmp_path, DEAF)
    script = Script([child])
    told: list[float] = []

    def steps() -> Iterator[None]:
        while not pids_in(child.log):
            yield
        told.append(time.monotonic())

    script.steps = steps()
    script.supervisor.run()

    assert not running(pids_in(child.log)[0])
    assert time.monotonic() - told[0] < GRACE_S


def test_children_leave_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path;"
        "from countersign.supervisor import GRACE_S, Child, Supervisor;"
        f"child = Child('child', [sys.executable, '-c', {WELL_BEHAVED!r}],"
        f" Path({str(tmp_path / 'child.log')!r}));"
        "Supervisor([child], dict(os.environ), on_end=print, on_tick=lambda: None).run()"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code])
    log = tmp_path / "child.log"
    [child] = wait_until(lambda: pids_in(log), what="the child is there")

    supervisor.kill()
    supervisor.wait()

    wait_until(lambda: not running(child), what="the child has left")
    assert log.read_text().splitlines()[-1] == "drained"


def test_a_log_that_has_grown_is_put_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    with log.open("ab") as writer:
        writer.write(b"old\n" * 100)
        writer.flush()

        rotate(log, size_bytes=100)

        writer.write(b"new\n")
        writer.flush()
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "service.log.1").read_bytes() == b"old\n" * 100


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    log.write_text("short\n")

    rotate(log, size_bytes=100)

    assert [path.name for path in tmp_path.iterdir()] == ["service.log"]
