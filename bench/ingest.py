"""How fast instances are received, durable and indexed, beside DCMTK's storescp and Orthanc.

``python -m bench.ingest [--instances 800] [--rounds 3] [--associations 1 8]`` prints JSON. All take
turns in one run, on the same file system; every DCMTK-based program runs with ``TCP_NODELAY=1``,
without which Nagle's algorithm stalls it for 40 ms an instance on loopback. storescp syncs and
indexes nothing, so its figure is a ceiling and not a peer's.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import create_engine

from imaging_store.schema import administration, delivery, ingest, results, workflow
from service_runtime.database import metadata
from service_runtime.messaging import tables

_SIDE = 512
_ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Receiver:
    """A server under test."""

    name: str
    port: int
    process_id: int


def make_instances(folder: Path, count: int, parts: int) -> list[Path]:
    """Draw ``count`` distinct CT slices of 512x512 16 bit into ``parts`` folders."""
    folders = [folder / f"part{part}" for part in range(parts)]
    base = np.random.default_rng(1).integers(0, 4096, (_SIDE, _SIDE), dtype=np.uint16)
    for part in folders:
        part.mkdir(parents=True)
    for number in range(count):
        slice_ = Dataset()
        slice_.SOPClassUID = CTImageStorage
        slice_.SOPInstanceUID = f"2.25.1000.{os.getpid()}.{number}"
        slice_.StudyInstanceUID = f"2.25.2000.{os.getpid()}.{number % parts}"
        slice_.SeriesInstanceUID = f"2.25.3000.{os.getpid()}.{number % parts}"
        slice_.PatientName, slice_.PatientID, slice_.Modality = "Bench^Ingest", "BENCH", "CT"
        slice_.InstanceNumber = number
        slice_.Rows = slice_.Columns = _SIDE
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 12, 11
        slice_.PixelRepresentation = 0
        slice_.add_new("PixelData", "OW", np.roll(base, number).tobytes())
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.save_as(folders[number % parts] / f"{number}.dcm", enforce_file_format=True)
    return folders


def send(folders: Sequence[Path], receiver: Receiver, associations: int) -> float:
    """Send every folder, so many associations at a time; return the seconds it took."""
    started = time.perf_counter()
    shares = [folders[start::associations] for start in range(associations)]
    senders = [
        subprocess.Popen(
            ["storescu", "--scan-directories", "-aec", "COUNTERSIGN", "127.0.0.1", str(receiver.port)]
            + [str(folder) for folder in share],
            env=_ENVIRONMENT,
        )
        for share in shares
    ]
    failed = [sender for sender in senders if sender.wait()]
    assert not failed, f"{receiver.name}: {len(failed)} senders failed"
    return time.perf_counter() - started


def cpu_s(process_id: int) -> float:
    """CPU time of a process and its descendants, those that have ended included."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            group = int(fields[3])  # session: each server leads one of its own
        except (OSError, IndexError):
            continue
        if group == process_id:
            total += sum(int(field) for field in fields[11:15]) / _TICKS_PER_S
    return total


@contextmanager
def countersign(folder: Path) -> Iterator[Receiver]:
    """Run our listener on SQLite: fsynced, indexed, announced."""
    assert {administration, delivery, ingest, results, workflow, tables}, "they fill the metadata"
    engine = create_engine(f"sqlite:///{folder / 'countersign.sqlite3'}")
    metadata.create_all(engine)
    engine.dispose()
    port = free_port()
    environment = _ENVIRONMENT | {
        "COUNTERSIGN_DATA_DIR": str(folder),
        "COUNTERSIGN_DICOM_PORT": str(port),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    command = [sys.executable, "-m", "dicom_listener"]
    with running("countersign", command, folder, port, environment) as receiver:
        yield receiver


@contextmanager
def storescp(folder: Path) -> Iterator[Receiver]:
    """Run DCMTK's storescp the fast way: data sets written as they come, a process each."""
    port = free_port()
    command = ["storescp", "+B", "--fork", "-pdu", "131072", "-od", str(folder), str(port)]
    with running("storescp", command, folder, port) as receiver:
        yield receiver


@contextmanager
def orthanc(folder: Path) -> Iterator[Receiver]:
    """Run Orthanc with its defaults, as a PACS would be."""
    port = free_port()
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": port,
        "HttpServerEnabled": False,
        "TcpNoDelay": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    command = [program, str(folder / "orthanc.json")]
    with running("orthanc", command, folder, port) as receiver:
        yield receiver


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    folder: Path,
    port: int,
    environment: Mapping[str, str] = _ENVIRONMENT,
) -> Iterator[Receiver]:
    """Run a server, leader of a session of its own, until it is no longer needed."""
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 20
        while not accepts_connections(port):
            assert server.poll() is None, f"{name} ended"
            assert time.monotonic() < deadline, f"{name} does not listen"
            time.sleep(0.05)
        time.sleep(1)
        yield Receiver(name, port, server.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


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


def measure(
    folders: Sequence[Path], count: int, rounds: int, associations: Sequence[int], work: Path
) -> dict[str, object]:
    """Let all receivers take turns; return rates, CPU and the ratios to storescp."""
    receivers: list[tuple[str, Callable[[Path], AbstractContextManager[Receiver]]]] = [
        ("storescp", storescp),
        ("countersign", countersign),
    ]
    if shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists():
        receivers.append(("orthanc", orthanc))
    seconds: dict[tuple[int, str], list[float]] = {}
    cpu: dict[tuple[int, str], list[float]] = {}
    for round_ in range(rounds + 1):
        for number in associations:
            for name, start in receivers:
                place = work / f"{name}-{number}-{round_}"
                place.mkdir()
                with start(place) as receiver:
                    before = cpu_s(receiver.process_id)
                    took = send(folders, receiver, number)
                    used = cpu_s(receiver.process_id) - before
                shutil.rmtree(place, ignore_errors=True)
                if round_:  # the first round warms memory
                    seconds.setdefault((number, name), []).append(took)
                    cpu.setdefault((number, name), []).append(used)
    figures: dict[str, object] = {}
    for number in associations:
        base = seconds[number, "storescp"]
        figures[f"{number} associations"] = {
            name: {
                "instances_per_s": round(count / statistics.median(seconds[number, name])),
                "cpu_s_per_1000": round(1000 * statistics.median(cpu[number, name]) / count, 2),
                "ratio_to_storescp": round(
                    statistics.median(
                        theirs / ours
                        for theirs, ours in zip(base, seconds[number, name], strict=True)
                    ),
                    2,
                ),
            }
            for name, _ in receivers
        }
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="countersign-bench-") as folder:
        work = Path(folder)
        parts = make_instances(work / "instances", options.instances, max(options.associations))
        figures = measure(parts, options.instances, options.rounds, options.associations, work)
    head = {"instances": options.instances, "rounds": options.rounds}
    print(json.dumps(head | figures, indent=1))


if __name__ == "__main__":
    main()
