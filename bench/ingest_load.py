"""Senders: storescu for throughput, and one of our own that times each C-STORE.

``python -m bench.ingest_load PORT FOLDER...`` is one association of the latter: it reads its
instances, waits for a line on standard input, sends, and prints each C-STORE's milliseconds.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom import dcmread

from bench.ingest_receivers import CHECKOUT, ENVIRONMENT, Receiver
from tests.peers.raw_scu import RawAssociation


def send(
    folders: Sequence[Path],
    receiver: Receiver,
    associations: int,
    environment: Mapping[str, str] = ENVIRONMENT,
) -> float:
    """Send every folder by storescu, so many at a time; return the seconds it took."""
    shares = [folders[start::associations] for start in range(associations)]
    started = time.perf_counter()
    senders = [
        subprocess.Popen(
            [
                *("storescu", "--scan-directories", "-aec", "COUNTERSIGN"),
                *("127.0.0.1", str(receiver.port), *(str(folder) for folder in share)),
            ],
            env=environment,
        )
        for share in shares
        if share
    ]
    ended = [sender.wait() for sender in senders]
    assert not any(ended), f"{receiver.name}: senders ended with {ended}"
    return time.perf_counter() - started


def latencies_ms(folders: Sequence[Path], receiver: Receiver, associations: int) -> list[float]:
    """Send every folder, a process for each association; return what every C-STORE took."""
    senders = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.ingest_load", str(receiver.port)]
            + [str(folder) for folder in folders[start::associations]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        for start in range(associations)
    ]
    for sender in senders:
        assert sender.stdout is not None
        assert sender.stdout.readline() == "ready\n"
    for sender in senders:
        assert sender.stdin is not None
        sender.stdin.write("go\n")
        sender.stdin.flush()
    taken: list[float] = []
    for sender in senders:
        output, _ = sender.communicate()
        assert sender.returncode == 0, receiver.name
        taken += json.loads(output)
    return taken


def main() -> None:
    """Be one association."""
    port, *folders = sys.argv[1:]
    instances = []
    for path in sorted(path for folder in folders for path in Path(folder).iterdir()):
        ds = dcmread(path, stop_before_pixels=True)
        start = 144 + ds.file_meta.FileMetaInformationGroupLength
        syntax = str(ds.file_meta.TransferSyntaxUID)
        data = path.read_bytes()[start:]
        instances.append((str(ds.SOPClassUID), syntax, str(ds.SOPInstanceUID), data))
    association = RawAssociation(int(port), [(each[0], each[1]) for each in instances])
    print("ready", flush=True)
    sys.stdin.readline()
    taken = []
    for instance in instances:
        began = time.perf_counter()
        status = association.store(*instance)
        taken.append(round(1000 * (time.perf_counter() - began), 3))
        assert status == 0, f"{status:04X}"
    association.release()
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
