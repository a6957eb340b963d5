"""How fast a worker reads, beside the bare network, ONNX Runtime and the naive way; JSON on stdout.

``python -m bench.inference [MODEL_FOLDER]``; ``--rounds --slices --studies`` make it short. All are
of one run on the same cores, and take turns round by round, after a first round that is not
measured; rates are medians, ratios medians of the ratios within a round. The worker is the real
one: requests through the database, its model in a process of its own, results and answers durable.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import inference_grad_cam, inference_peers
from bench.inference_load import Ward
from inference_worker.model_folder import load_model_folder
from service_runtime.telemetry import log

CHEST = Path(__file__).parent.parent / "models" / "chest-radiograph"
BATCH = 16
NAIVE_IMAGES = 8
LEAST_OF_BARE = 0.7
LEAST_OF_NAIVE = 8
MOST_CORE_MS = 25


def main(arguments: list[str]) -> int:
    """Measure, print, and answer 1 where a bar is missed."""
    asked = _parser().parse_args(arguments)
    log.configure("bench", "error")
    folder = load_model_folder(asked.folder)
    peers = inference_peers.peers(folder, BATCH)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as data_dir,
        Ward(folder, Path(data_dir)) as ward,
    ):
        rates = _rates(asked, ward, peers)
        one_image = ward.core_ms_of_one_image_studies(asked.studies)
    grad_cam = inference_grad_cam.ratios(folder)
    figures: dict[str, Any] = {
        "model": f"{folder.description.name} {folder.description.version}",
        "rounds": asked.rounds,
        "series": {"slices": asked.slices, "rows": 512, "columns": 512, "at_once": asked.series},
        "images_per_s": {name: round(statistics.median(found), 1) for name, found in rates.items()},
        "worker_over": {
            name: round(_ratio(rates["worker"], found), 3)
            for name, found in rates.items()
            if name != "worker"
        },
        "one_image_study_core_ms": one_image,
        "grad_cam": grad_cam,
        "gpu": inference_peers.gpu(),
        "absent": inference_peers.absent(),
    }
    bars = {
        f"worker at least {LEAST_OF_BARE} x bare forward": figures["worker_over"]["bare_forward"]
        >= LEAST_OF_BARE,
        f"worker at least {LEAST_OF_NAIVE} x naive": figures["worker_over"]["naive"]
        >= LEAST_OF_NAIVE,
        f"all but decode and graph at most {MOST_CORE_MS} core-ms": one_image[
            "all_but_decode_graph"
        ]
        <= MOST_CORE_MS,
        f"Grad-CAM at most {inference_grad_cam.BAR} x classify": grad_cam["within"],
    }
    print(json.dumps(figures | {"bars": bars}))
    return 0 if all(bars.values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.inference")
    parser.add_argument("folder", nargs="?", type=Path, default=CHEST)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--series", type=int, default=3, help="that wait at the same time")
    parser.add_argument("--studies", type=int, default=40, help="of one image")
    return parser


def _rates(
    asked: argparse.Namespace, ward: Ward, peers: dict[str, inference_peers.Peer]
) -> dict[str, list[float]]:
    """Return images/s of each contestant, by round."""
    random = np.random.default_rng(1)
    rows, columns = ward.folder.description.input.rows, ward.folder.description.input.columns
    batch = random.integers(0, 256, (BATCH, rows, columns), dtype=np.uint8)
    ward.keep_series(asked.series, asked.slices)
    contestants: dict[str, Callable[[], float]] = {
        "worker": ward.read_series,
    }
    for name, peer in peers.items():
        count = NAIVE_IMAGES if name == "naive" else max(BATCH, asked.slices // BATCH * BATCH)
        contestants[name] = lambda peer=peer, count=count: _rate(peer, batch, count)  # type: ignore[misc]
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(asked.rounds + 1):
        for name, run in contestants.items():
            rate = run()
            if round_number:
                rates[name].append(rate)
    return rates


def _rate(peer: inference_peers.Peer, batch: inference_peers.Batch, count: int) -> float:
    began_s = time.perf_counter()
    done = 0
    while done < count:
        peer(batch[: min(BATCH, count - done)])
        done += min(BATCH, count - done)
    return done / (time.perf_counter() - began_s)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
