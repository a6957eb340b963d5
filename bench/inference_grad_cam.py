"""What Grad-CAM adds to classifying, at batch 1 and 16.

Both are run in turn, so that what else the machine does falls on both; the figure is the median of
the ratios of neighbors.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from inference_worker.model_folder import ModelFolder
from inference_worker.predictor import Predictor

BATCHES = (1, 16)
WARM_UP_PAIRS = 5
PAIRS = 60
BAR = 1.15


def ratios(folder: ModelFolder) -> dict[str, Any]:
    """Return of each batch size how classifying compares with explaining as well."""
    predictor = Predictor(folder)
    description = folder.description
    random = np.random.default_rng(1)
    found = {}
    for batch in BATCHES:
        shape = (batch, description.input.rows, description.input.columns)
        pictures = random.integers(0, 256, shape, dtype=np.uint8)
        found[f"batch_{batch}"] = _compare(
            lambda pictures=pictures: predictor.classify(pictures),  # type: ignore[misc]
            lambda pictures=pictures: predictor.predict(pictures),  # type: ignore[misc]
        )
    within = all(each["median_ratio"] <= BAR for each in found.values())
    return {"pairs": PAIRS, "bar": BAR, "within": within} | found


def _compare(classify: Callable[[], object], explain: Callable[[], object]) -> dict[str, float]:
    for _ in range(WARM_UP_PAIRS):
        classify(), explain()
    pairs = []
    for number in range(PAIRS):
        # Who goes first alternates: the second finds warmer caches.
        if number % 2:
            explain_s, classify_s = _duration_s(explain), _duration_s(classify)
        else:
            classify_s, explain_s = _duration_s(classify), _duration_s(explain)
        pairs.append((classify_s, explain_s))
    return {
        "median_ratio": round(statistics.median(late / early for early, late in pairs), 4),
        "classify_ms": round(1000 * statistics.median(pair[0] for pair in pairs), 2),
        "classify_and_grad_cam_ms": round(1000 * statistics.median(pair[1] for pair in pairs), 2),
    }


def _duration_s(run: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s
