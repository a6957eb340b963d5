"""How fast instances are received, durable and indexed, beside DCMTK's storescp and Orthanc.

``python -m bench.ingest`` prints JSON; ``--instances --rounds --associations`` make it short. All
take turns in one run on one file system, in a first round that is not measured and so many that
are; figures are medians, ratios medians of the ratios within a round. Each is begun anew for its
turn and sent some instances before it is measured, because it would run for months. Every program
of DCMTK runs with ``TCP_NODELAY=1``; what the default environment gives stands beside. storescp
syncs and indexes nothing: it is a ceiling, not a peer. Throughput and CPU are of storescu as
sender, latency of a sender of our own over a raw socket, one process for each association.

ext4 without a journal looks at every inode of a block group that was deleted in the last minutes
before it makes a file there. After tests, or another run, have ``TMPDIR`` name a new folder of the
root, which lies in another group.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import ingest_large_index
from bench.ingest_instances import CT, DX, draw, size_bytes
from bench.ingest_load import latencies_ms, send
from bench.ingest_receivers import ENVIRONMENT, Receiver, countersign, receivers
from tests.peers.raw_scu import VERIFICATION, RawAssociation

IDLE_ASSOCIATIONS = 16
_IDLE_S = 10
_MEGABYTE = 1_000_000
_LATENCY_INSTANCES = 160
_WARMING_INSTANCES = 400


@dataclass
class Turns:
    """What the turns of one configuration took, by receiver and round."""

    count: int
    megabytes: float
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    latency_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, seconds: float, cpu_s: float, latency_ms: Sequence[float]) -> None:
        self.seconds.setdefault(name, []).append(seconds)
        self.cpu_s.setdefault(name, []).append(cpu_s)
        self.latency_ms.setdefault(name, []).extend(latency_ms)

    def figures(self) -> dict[str, object]:
        """Return each receiver's figures, and ours over those of the others."""
        every: dict[str, object] = {}
        for name, seconds in self.seconds.items():
            median_s = statistics.median(seconds)
            every[name] = {
                "instances_per_s": round(self.count / median_s),
                "megabytes_per_s": round(self.megabytes / median_s),
                "cpu_s_per_1000": round(1000 * statistics.median(self.cpu_s[name]) / self.count, 2),
            } | percentiles(self.latency_ms[name])
        orthancs = [name for name in self.seconds if name.startswith("orthanc")]
        better = min(orthancs, key=lambda name: statistics.median(self.seconds[name]), default="")
        every["countersign / storescp"] = self._ratio("storescp", self.seconds)
        every["cpu: countersign / storescp"] = self._ratio("storescp", self.cpu_s, inverse=True)
        if better:
            every[f"countersign / {better}"] = self._ratio(better, self.seconds)
        return every

    def _ratio(
        self, other: str, taken: Mapping[str, list[float]], *, inverse: bool = False
    ) -> float:
        ratios = [
            theirs / ours for theirs, ours in zip(taken[other], taken["countersign"], strict=True)
        ]
        return round(statistics.median(1 / each if inverse else each for each in ratios), 3)


def percentiles(taken_ms: Sequence[float]) -> dict[str, float]:
    """Return the C-STORE latencies that 50, 95 and 99 of a hundred keep to."""
    if not taken_ms:
        return {}
    cuts = statistics.quantiles(taken_ms, n=100, method="inclusive")
    return {f"p{share}_ms": round(cuts[share - 1], 2) for share in (50, 95, 99)}


class Bench:
    """All turns of a run."""

    def __init__(self, work: Path, rounds: int) -> None:
        self._work = work
        self._rounds = rounds
        self._places = 0
        self._warming = draw(CT, work / "warming", _WARMING_INSTANCES, 8, series=2)

    def place(self) -> Path:
        """Return a new folder."""
        self._places += 1
        place = self._work / f"place{self._places}"
        place.mkdir()
        return place

    def turns(
        self,
        folders: list[Path],
        associations: int,
        *,
        timed: Sequence[Path] = (),
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> dict[str, object]:
        """Let every receiver take its turns with one number of associations."""
        count = sum(1 for folder in folders for _ in folder.iterdir())
        turns = Turns(count, size_bytes(folders) / _MEGABYTE)
        for round_ in range(self._rounds + 1):
            for name, start in receivers().items():
                place = self.place()
                with start(place, environment) as receiver:
                    send(self._warming, receiver, associations, environment)
                    before = receiver.cpu_s()
                    seconds = send(folders, receiver, associations, environment)
                    cpu_s = receiver.cpu_s() - before
                    latency = latencies_ms(timed, receiver, associations) if timed else []
                rate = f"{count / seconds:.0f}/s"
                print(f"round {round_}: {name}, {associations} at once: {rate}", file=sys.stderr)
                if round_:  # the first warms memory
                    turns.add(name, seconds, cpu_s, latency)
        return turns.figures()

    def idle_share(self) -> dict[str, object]:
        """Return the share of a core that associations take on which nothing happens."""
        with countersign(self.place()) as receiver:
            idle = [
                RawAssociation(receiver.port, [(VERIFICATION, "1.2.840.10008.1.2")])
                for _ in range(IDLE_ASSOCIATIONS)
            ]
            share = cpu_share(receiver)
            for association in idle:
                association.release()
        return {"associations": IDLE_ASSOCIATIONS, "cpu_share": round(share, 4), "bar": 0.02}


def cpu_share(receiver: Receiver) -> float:
    """Return which share of a core a receiver takes for some seconds."""
    time.sleep(1)
    before, began = receiver.cpu_s(), time.monotonic()
    time.sleep(_IDLE_S)
    return (receiver.cpu_s() - before) / (time.monotonic() - began)


def run(options: argparse.Namespace, work: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Measure everything that is asked for; give figures and what they are of as they come."""
    most = max(options.associations)
    bench = Bench(work, options.rounds)
    ct = draw(CT, work / "ct", options.instances, most)
    timed = draw(CT, work / "timed", max(most, _LATENCY_INSTANCES), most, series=1)
    for number in options.associations:
        yield f"{CT.name}, {number} associations", bench.turns(ct, number, timed=timed)
    dx = draw(DX, work / "dx", max(8, options.instances // 50), 8)
    timed = draw(DX, work / "dx timed", 16, 8, series=1)
    yield f"{DX.name}, 8 associations", bench.turns(dx, 8, timed=timed)
    yield "idle", bench.idle_share()
    default = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    few = Bench(bench.place(), min(2, options.rounds))
    of_default = few.turns(ct, 8, environment=default)
    yield f"{CT.name}, 8 associations, default environment", of_default
    if options.large_index:
        yield (
            "large index",
            ingest_large_index.measure(
                ct, options.instances, options.rounds, 8, options.large_index, bench.place()
            ),
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1600, help="distinct CT instances")
    parser.add_argument("--rounds", type=int, default=7, help="measured ones")
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--large-index", type=int, default=1_000_000, help="0 leaves it out")
    options = parser.parse_args()
    began = time.monotonic()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="countersign-bench-") as folder:
        for what, measured in run(options, Path(folder)):
            # A run takes 20 to 40 minutes, and may be cut short.
            print(json.dumps({what: measured}, indent=1), file=sys.stderr)
            figures[what] = measured
    head = {
        "instances": options.instances,
        "rounds": options.rounds,
        "load_average": [round(each, 1) for each in os.getloadavg()],
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(head | figures, indent=1))


if __name__ == "__main__":
    main()
