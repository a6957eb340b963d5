"""Train as the shipped network is trained, once per fold, and keep what it says of the rest."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from inference_worker.model_folder import sha256_of
from model_training.architectures import BACKBONES
from model_training.data_set import DataSet
from model_training.fitting import fine_tune, frozen_features, scores
from model_training.networks import build_network, kernels_of, unmoved_kernels
from model_training.recipe import Recipe

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """What all networks of one training have in common."""

    recipe: Recipe
    backbone_weights: Path
    work_dir: Path
    """Finished folds are kept here and not done again."""
    seed: int
    report: Callable[[str], None]


def untrained(run: Run) -> Any:
    """Return the network as it is before the first step."""
    how = run.recipe.fine_tuning
    return build_network(
        BACKBONES[how.backbone], how.side, len(run.recipe.classes), run.backbone_weights
    )


def trained(run: Run, data: DataSet, rows: IntArray, name: str) -> Any:
    """Return a network fine-tuned on ``rows`` of the data; a finished one is read again.

    Raises
    ------
    RuntimeError
        A kernel is still that of the backbone it started from; such weights are not ours.
    """
    file = run.work_dir / f"{name}-{_digest(run, data, rows, name)}.keras"
    if file.is_file():
        run.report(f"{name}: read from {file.name}")
        return keras.saving.load_model(file, compile=False)
    keras.utils.set_random_seed(run.seed)
    network = untrained(run)
    before = kernels_of(network)
    random = np.random.default_rng(run.seed)
    lines = fine_tune(
        network, data.pictures[rows], data.labels[rows], run.recipe.fine_tuning, random
    )
    for line in lines:
        run.report(f"{name}: {line}")
    unmoved = unmoved_kernels(network, before)
    if unmoved:
        raise RuntimeError(f"training has not moved {', '.join(unmoved)}")
    unfinished = file.with_name("unfinished.keras")
    network.save(unfinished)
    unfinished.replace(file)
    return network


def out_of_fold_scores(run: Run, data: DataSet, folds: IntArray) -> FloatArray:
    """Return for every row the scores of the network that has not seen its fold."""
    found = np.zeros((len(data.rows), len(run.recipe.classes)))
    for fold in np.unique(folds):
        learned = np.flatnonzero(folds != fold)
        held_out = np.flatnonzero(folds == fold)
        network = trained(run, data, learned, f"fold-{fold + 1}")
        found[held_out] = scores(network, data.pictures[held_out])
        right = np.mean(found[held_out].argmax(axis=1) == data.labels[held_out])
        run.report(f"fold-{fold + 1}: accuracy out of fold {right:.4f}")
        keras.backend.clear_session()
    return found


def frozen_backbone_features(run: Run, data: DataSet) -> FloatArray:
    """Return the pooled features of the backbone as it came."""
    return frozen_features(untrained(run), data.pictures)


def _digest(run: Run, data: DataSet, rows: IntArray, name: str) -> str:
    """Return what the result depends on, in short, so that nothing stale is taken for it."""
    content = {
        "name": name,
        "seed": run.seed,
        "fine_tuning": run.recipe.fine_tuning.model_dump(mode="json"),
        "labels": run.recipe.labels,
        "backbone": sha256_of(run.backbone_weights),
        "files": [f"{data.rows[row].path.name}={data.labels[row]}" for row in rows],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
