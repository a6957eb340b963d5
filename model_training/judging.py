"""How good the networks are, on rows that they have not learned from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_worker.evaluate import figures
from model_training.baselines import ONLY_LEARNED, thumbnails
from model_training.calibration import (
    Calibration,
    Held,
    calibrated_by_the_rest,
    calibrated_out_of_fold,
    fit_calibration,
    uncertain_below,
)
from model_training.comparison import Inputs, compare, source_confound
from model_training.cross_validation import OutOfFold, Run, out_of_fold_scores
from model_training.data_set import DataSet, TextArray
from model_training.fitting import scores
from model_training.folds import grouped_folds
from model_training.splitting import Part

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CONFOUND_FOLDS = 5


@dataclass(frozen=True)
class Parted:
    """A data set, and what each of its rows is for."""

    data: DataSet
    parts: TextArray
    folds: IntArray | None
    """Of the train rows, in their order; ``None`` without cross-validation."""

    def rows(self, part: Part) -> IntArray:
        """Return the numbers of the rows of a part."""
        return np.flatnonzero(self.parts == part)

    def only(self, part: Part) -> DataSet | None:
        """Return the rows of a part; ``None`` where it has none."""
        rows = self.rows(part)
        return self.data.only(rows) if len(rows) else None


@dataclass(frozen=True)
class Judged:
    """What the card is made from: figures, and the rows behind the first of them."""

    metrics: dict[str, Any]
    calibration: Calibration
    uncertain_below: float
    primary: str
    """The key of the figures that say most: cross-validated, or on the part that judges."""
    rows: IntArray
    """The rows of the data set that these figures are of."""
    probabilities: FloatArray
    """Of those rows, ``[n, classes]``."""


def with_folds(data: DataSet, parts: TextArray, fold_count: int, seed: int) -> Parted:
    """Deal the train rows into folds; with a count of 0 there are none.

    Raises
    ------
    ValueError
        There are fewer groups to learn from than folds.
    """
    if not fold_count:
        return Parted(data, parts, None)
    learned = parts == Part.TRAIN
    folds = grouped_folds(data.labels[learned], data.groups[learned], fold_count, seed)
    return Parted(data, parts, folds)


def judge(run: Run, parted: Parted, network: Any, out_of_fold: OutOfFold | None) -> Judged:
    """Calibrate the final network and measure it.

    The validation rows calibrate it, together with the scores out of fold of a cross-validation,
    whose networks are calibrated in the same way. The figures of the validation part are then of
    rows that the rest of it has calibrated. The threshold comes from the cross-validation; without
    one, from the validation rows. The part that judges is the test rows, or where the data have
    none, the validation rows, which have then been looked at; the card says so.
    """
    data, recipe = parted.data, run.recipe
    found = scores(network, data.pictures)
    learned, validation = parted.rows(Part.TRAIN), parted.rows(Part.VALIDATION)
    test = parted.rows(Part.TEST)
    own = Held(found[validation], data.labels[validation])
    others: tuple[Held, ...] = ()
    honest = None
    if out_of_fold is not None and parted.folds is not None:
        held = Held(out_of_fold.scores, data.labels[learned])
        others = tuple(held.only(parted.folds == fold) for fold in np.unique(parted.folds))
        of_each = [Held(each, own.labels) for each in out_of_fold.on_validation]
        honest = calibrated_out_of_fold(held, parted.folds, of_each)
    calibration = fit_calibration(own, others)
    crossed = calibrated_by_the_rest(own, data.groups[validation], others, run.seed)
    if honest is None:
        threshold = uncertain_below(crossed, own.labels, recipe.uncertain_target)
    else:
        threshold = uncertain_below(honest, data.labels[learned], recipe.uncertain_target)
    probabilities = calibration.probabilities(found)
    probabilities[validation] = crossed

    def on(rows: IntArray, these: FloatArray) -> dict[str, Any]:
        return figures(data.labels[rows], these, data.groups[rows], recipe.labels, threshold)

    metrics: dict[str, Any] = {
        "calibration": {
            "temperature": round(calibration.temperature, 4),
            "offsets": {
                label: round(float(offset), 4)
                for label, offset in zip(recipe.labels, calibration.offsets, strict=True)
            },
        }
    }
    primary, rows, shown = "validation", validation, probabilities[validation]
    if len(validation):
        metrics["validation"] = on(validation, shown)
    if len(test):
        primary, rows, shown = "test", test, probabilities[test]
        metrics["test"] = on(test, shown)
    if honest is not None and parted.folds is not None:
        primary, rows, shown = "cross_validation", learned, honest
        metrics["cross_validation"] = {"folds": int(parted.folds.max()) + 1} | on(learned, honest)
    metrics |= _worth(run, parted, probabilities, honest)
    return Judged(metrics, calibration, threshold, primary, rows, shown)


def _worth(
    run: Run, parted: Parted, found: FloatArray, out_of_fold: FloatArray | None
) -> dict[str, Any]:
    """Compare probabilities with baselines, on the folds and on the part that judges."""
    run.reporter.line("comparing with a thumbnail and with frozen features")
    data = parted.data
    features = data.features
    small = thumbnails(data.pictures)

    def inputs(rows: IntArray, folds: IntArray, model: FloatArray) -> Inputs:
        return Inputs(
            data=data.only(rows),
            folds=folds,
            model=model,
            features=None if features is None else features[rows],
            thumbnails=small[rows],
            seed=run.seed,
        )

    learned, test = parted.rows(Part.TRAIN), parted.rows(Part.TEST)
    judging = test if len(test) else parted.rows(Part.VALIDATION)
    worth: dict[str, Any] = {}
    if len(judging):
        rows = np.concatenate([learned, judging])
        folds = np.concatenate(
            [np.full(len(learned), ONLY_LEARNED), np.zeros(len(judging), dtype=np.int64)]
        )
        worth["held_out_comparison"] = compare(run.recipe, inputs(rows, folds, found[rows]))
    folds = np.zeros(len(learned), dtype=np.int64) if parted.folds is None else parted.folds
    on_learned = inputs(learned, folds, found[learned] if out_of_fold is None else out_of_fold)
    if out_of_fold is not None:
        worth["comparison"] = compare(run.recipe, on_learned)
    worth["source_confound"] = source_confound(on_learned, CONFOUND_FOLDS)
    return worth


def judge_left_out(run: Run, network: Any, judged: Judged, known: DataSet, other: DataSet) -> Any:
    """Judge the network on what it may not learn from, without the patients that it knows."""
    unknown = np.flatnonzero(~np.isin(other.groups, known.groups))
    if not len(unknown):
        return {}
    other = other.only(unknown)
    probabilities = judged.calibration.probabilities(scores(network, other.pictures))
    names, threshold = run.recipe.labels, judged.uncertain_below
    found = figures(other.labels, probabilities, other.groups, names, threshold)
    return found | {"sources": sorted(set(other.sources))}


def cross_validated(run: Run, parted: Parted) -> OutOfFold | None:
    """Return the scores out of fold of the train rows; ``None`` without cross-validation."""
    if parted.folds is None:
        return None
    learned = parted.data.only(parted.rows(Part.TRAIN))
    return out_of_fold_scores(run, learned, parted.only(Part.VALIDATION), parted.folds)
