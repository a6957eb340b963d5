"""The servers that are compared, each leader of a session of its own, on a folder of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from imaging_store.migrations import upgrade

CHECKOUT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}
"""Without it Nagle's algorithm stalls DCMTK for 40 ms an instance on loopback."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_S = 30


@dataclass(frozen=True)
class Receiver:
    """A server under test."""

    name: str
    port: int
    process_id: int

    def cpu_s(self) -> float:
        """CPU time of its whole session, of processes that have ended too."""
        total = 0.0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, IndexError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process_id:
                    total += sum(int(field) for field in fields[11:15]) / _TICKS_PER_S
        return total


Start = Callable[[Path, Mapping[str, str]], AbstractContextManager[Receiver]]


def receivers() -> dict[str, Start]:
    """Return what there is to compare; Orthanc only where it is installed."""
    found: dict[str, Start] = {"storescp": storescp, "countersign": countersign}
    if orthanc_program() is not None:
        found["orthanc, 4 threads"] = partial(orthanc, threads=4)
        found["orthanc, 16 threads"] = partial(orthanc, threads=16)
    return found


@contextmanager
def countersign(
    folder: Path, environment: Mapping[str, str] = ENVIRONMENT, database_url: str | None = None
) -> Iterator[Receiver]:
    """Run our listener with its defaults: fsynced, indexed, announced."""
    url = database_url or f"sqlite:///{folder / 'countersign.sqlite3'}"
    if database_url is None:
        upgrade(url)
    port = free_port()
    settings = {
        "COUNTERSIGN_DATA_DIR": str(folder),
        "COUNTERSIGN_DATABASE_URL": url,
        "COUNTERSIGN_DICOM_PORT": str(port),
        "PYTHONPATH": str(CHECKOUT),
    }
    command = [sys.executable, "-m", "dicom_listener"]
    with running("countersign", command, folder, port, {**environment, **settings}) as receiver:
        yield receiver


@contextmanager
def storescp(folder: Path, environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[Receiver]:
    """Run DCMTK's storescp the fast way: data sets written as they come, a process each."""
    port = free_port()
    command = ["storescp", "+B", "--fork", "-pdu", "131072", "-od", str(folder), str(port)]
    with running("storescp", command, folder, port, environment) as receiver:
        yield receiver


def orthanc_program() -> str | None:
    """Return where Orthanc is."""
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")


@contextmanager
def orthanc(
    folder: Path, environment: Mapping[str, str] = ENVIRONMENT, *, threads: int = 4
) -> Iterator[Receiver]:
    """Run Orthanc as a PACS would be, with so many threads for DICOM."""
    port = free_port()
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": port,
        "DicomThreadsCount": threads,
        "HttpServerEnabled": False,
        "TcpNoDelay": environment.get("TCP_NODELAY") == "1",
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    command = [orthanc_program() or "Orthanc", str(folder / "orthanc.json")]
    with running("orthanc", command, folder, port, environment) as receiver:
        yield receiver


@contextmanager
def running(
    name: str, command: Sequence[str], folder: Path, port: int, environment: Mapping[str, str]
) -> Iterator[Receiver]:
    """Run a server until it is no longer needed; then give its disk space back."""
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        deadline = time.monotonic() + _START_S
        while not accepts_connections(port):
            assert server.poll() is None, f"{name} ended: {(folder / 'server.log').read_text()}"
            assert time.monotonic() < deadline, f"{name} does not listen"
            time.sleep(0.05)
        time.sleep(0.5)  # until all of its processes have started
        yield Receiver(name, port, server.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        empty(folder)


def empty(folder: Path) -> None:
    """Cut every file to nothing, and have the disk do what it still has to.

    Not removed: ext4 looks at every inode that was lately deleted before it makes the next file,
    and the next server would pay for that. Nor does it pay for what this one left unwritten.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    os.sync()


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    """Return whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
