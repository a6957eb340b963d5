"""An embedded system of its own, for the demo and the self-test: free ports, its own folder."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from countersign.supervisor import python_module
from countersign.up import is_ready
from service_runtime.errors import CountersignError
from service_runtime.settings import ENV_PREFIX

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
AE_TITLE = "COUNTERSIGN"

_READY_WITHIN_S = 120
_STOPPED_WITHIN_S = 40
_KEPT_SETTINGS = {"MODELS_DIR", "TIME_ZONE", "INSTITUTION_NAME", "LOG_LEVEL"}


class StepFailed(CountersignError):
    """A step did not do what it should."""


@dataclass(frozen=True)
class System:
    """A running system."""

    data_dir: Path
    dicom_port: int
    http_port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where its API answers."""
        return f"http://{LOOPBACK}:{self.http_port}"


@contextmanager
def running_system(data_dir: Path) -> Iterator[System]:
    """Start every service over a folder and wait until all are ready; stop them at the end.

    Raises
    ------
    StepFailed
        It ended instead, or was not ready in time.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    dicom_port, http_port, dicomweb_port = _free_ports(3)
    kept = {ENV_PREFIX + name for name in _KEPT_SETTINGS}
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENV_PREFIX) or name in kept
    }
    command = python_module("countersign", "up", "--data", str(data_dir))
    flags = ["--dicom-port", dicom_port, "--http-port", http_port]
    flags += ["--dicomweb-port", dicomweb_port, "--quiet-period-s", 1]
    with (data_dir / "up.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, *map(str, flags), "--ae-title", AE_TITLE],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            # Ctrl-C is for our caller, who then ends it in order.
            start_new_session=True,
        )
    system = System(data_dir, dicom_port, http_port, process)
    try:
        wait_for(lambda: _is_up(system), _READY_WITHIN_S, "the services")
        yield system
    finally:
        _stop(process)


def _is_up(system: System) -> bool:
    if system.process.poll() is not None:
        said = (system.data_dir / "up.log").read_text(errors="replace").strip()
        raise StepFailed(f"`countersign up` ended: {said}")
    return is_ready(system.url)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Ask again and again until ``condition`` returns something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.1)
    raise StepFailed(f"{what}: not within {timeout_s:g} s")


def _free_ports(count: int) -> list[int]:
    # All are held until all are known, so that no two are the same.
    probes = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
