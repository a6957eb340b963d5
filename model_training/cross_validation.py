"""Train as the shipped network is trained, once per fold, and keep what it says of the rest."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from inference_worker.model_folder import sha256_of
from model_training.checkpoint import Checkpoint, Epoch, Progress
from model_training.data_set import DataSet
from model_training.fitting import (
    CHECKPOINT_EVERY_S,
    Fitting,
    fine_tune,
    frozen_features,
    scores,
)
from model_training.networks import build_network, kernels_of, unmoved_kernels
from model_training.progress import Reporter
from model_training.recipe import FineTuning, Recipe

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """What all networks of one training have in common."""

    recipe: Recipe
    backbone_weights: Path | None
    """``None``: random ones."""
    work_dir: Path
    """Finished networks are kept here and not trained again, unfinished ones go on."""
    seed: int
    reporter: Reporter
    checkpoint_every_s: float = CHECKPOINT_EVERY_S


@dataclass(frozen=True)
class Trained:
    """A finished network, and how it came to be."""

    network: Any
    history: tuple[Epoch, ...]

    def chosen(self, how: FineTuning) -> int:
        """Return the number of the epoch that the network is the version of."""
        best = Progress(history=list(self.history)).best
        return best.number if best and how.patience is not None else len(self.history)


def untrained(run: Run) -> Any:
    """Return the network as it is before the first step; raises as ``build_backbone``."""
    keras.utils.set_random_seed(run.seed)
    return build_network(run.recipe.fine_tuning, len(run.recipe.classes), run.backbone_weights)


def trained(run: Run, learned: DataSet, validation: DataSet | None, name: str) -> Trained:
    """Return a network fine-tuned on ``learned``; a finished one is read again.

    Raises
    ------
    Stopped
        Somebody asked for an end; the same call goes on from there.
    RuntimeError
        A kernel is still that of the backbone it started from; such weights are not ours.
    """
    stem = f"{name}-{_digest(run, learned, validation, name)}"
    file = run.work_dir / f"{stem}.keras"
    told = run.work_dir / f"{stem}.history.json"
    if file.is_file() and told.is_file():
        run.reporter.line(f"{name}: read from {file.name}")
        history = json.loads(told.read_text(encoding="utf-8"))
        network = keras.saving.load_model(file, compile=False)
        return Trained(network, tuple(Epoch(**each) for each in history))
    network = untrained(run)
    before = kernels_of(network)
    checkpoint = Checkpoint(run.work_dir / f"{stem}.checkpoint.npz")
    history = fine_tune(
        Fitting(
            network=network,
            learned=learned,
            validation=validation,
            how=run.recipe.fine_tuning,
            seed=run.seed,
            name=name,
            reporter=run.reporter,
            checkpoint=checkpoint,
            checkpoint_every_s=run.checkpoint_every_s,
        )
    )
    unmoved = unmoved_kernels(network, before)
    if unmoved:
        raise RuntimeError(f"training has not moved {', '.join(unmoved)}")
    unfinished = file.with_name(f"{stem}.unfinished.keras")
    network.save(unfinished)
    told.write_text(json.dumps([asdict(each) for each in history]), encoding="utf-8")
    unfinished.replace(file)
    checkpoint.remove()
    return Trained(network, tuple(history))


@dataclass(frozen=True)
class OutOfFold:
    """What the networks of a cross-validation said of rows that they have not learned from."""

    scores: FloatArray
    """Of every train row, by the network that has not seen its fold, ``[n, classes]``."""
    on_validation: tuple[FloatArray, ...]
    """Of the validation rows, by the network of each fold."""


def out_of_fold_scores(
    run: Run, learned: DataSet, validation: DataSet | None, folds: IntArray
) -> OutOfFold:
    """Return for every row the scores of the network that has not seen its fold.

    Each is trained as the shipped one is, and stopped and calibrated by the same validation rows,
    none of which are among those it is judged by.
    """
    found = np.zeros((len(learned.rows), len(run.recipe.classes)))
    on_validation = []
    for fold in np.unique(folds):
        held_out = np.flatnonzero(folds == fold)
        rest = learned.only(np.flatnonzero(folds != fold))
        network = trained(run, rest, validation, f"fold-{fold + 1}").network
        found[held_out] = scores(network, learned.pictures[held_out])
        on_validation.append(
            found[:0] if validation is None else scores(network, validation.pictures)
        )
        right = np.mean(found[held_out].argmax(axis=1) == learned.labels[held_out])
        run.reporter.line(f"fold-{fold + 1}: accuracy out of fold {right:.4f}")
        keras.backend.clear_session()
    return OutOfFold(found, tuple(on_validation))


def frozen_backbone_features(run: Run, data: DataSet) -> FloatArray:
    """Return the pooled features of the backbone as it came."""
    return frozen_features(untrained(run), data.pictures)


def _digest(run: Run, learned: DataSet, validation: DataSet | None, name: str) -> str:
    """Return what the result depends on, in short, so that nothing stale is taken for it."""
    weights = run.backbone_weights
    content = {
        "name": name,
        "seed": run.seed,
        "fine_tuning": run.recipe.fine_tuning.model_dump(mode="json"),
        "class_count": len(run.recipe.classes),
        "backbone": None if weights is None else sha256_of(weights),
        "learned": learned.digest(),
        "validation": None if validation is None else validation.digest(),
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
