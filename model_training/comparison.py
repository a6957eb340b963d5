"""What the figures are worth: differences to baselines, subgroups, and the source confound."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_worker.evaluate import BOOTSTRAP_SEED
from inference_worker.grouped_intervals import Figure, grouped_bootstrap, mean_recall, share_of
from model_training.baselines import ONLY_LEARNED, best_linear_scores
from model_training.data_set import DataSet
from model_training.folds import grouped_folds
from model_training.recipe import Recipe

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
DIFFERENCES = {
    "linear_head_on_frozen_features": "model_minus_linear_head",
    "thumbnail_12x12": "model_minus_thumbnail",
}


@dataclass(frozen=True)
class Inputs:
    """Everything that is compared, row by row of one data set."""

    data: DataSet
    folds: IntArray
    """Of every row, by whose scores it is judged; ``ONLY_LEARNED`` rows are not judged."""
    model: FloatArray
    """Probabilities ``[n, classes]`` of networks that have not learned from the row."""
    features: FloatArray | None
    """Pooled features of the frozen backbone; ``None`` where it had no weights to come with."""
    thumbnails: FloatArray
    seed: int
    """Of the folds in which the source is told."""


def compare(recipe: Recipe, inputs: Inputs) -> dict[str, Any]:
    """Return the comparison as it stands in ``metrics.json``; all of it on rows not learned."""
    everything = np.ones(len(inputs.data.rows), dtype=np.bool_)
    found = {"all": _between(inputs, everything, tuple(range(len(recipe.classes))))}
    for subgroup in recipe.subgroups:
        places = tuple(recipe.labels.index(label) for label in subgroup.labels)
        rows = np.isin(inputs.data.sources, subgroup.sources)
        rows &= np.isin(inputs.data.labels, places)
        if (rows & (inputs.folds != ONLY_LEARNED)).any():
            found[subgroup.name] = _between(inputs, rows, places)
    return found


def _between(
    inputs: Inputs, rows: npt.NDArray[np.bool_], places: tuple[int, ...]
) -> dict[str, Any]:
    """Compare on some rows, where only some classes may be chosen.

    The networks are those trained on all classes; the baselines are fitted to these rows and
    classes alone, which is in their favor.
    """
    number = {place: index for index, place in enumerate(places)}
    labels = np.array([number[each] for each in inputs.data.labels[rows]], dtype=np.int64)
    folds = inputs.folds[rows]
    judged = folds != ONLY_LEARNED
    chosen = {
        "model": inputs.model[rows][:, places].argmax(axis=1)[judged],
        "thumbnail_12x12": _best_linear(inputs.thumbnails[rows], labels, folds),
    }
    if inputs.features is not None:
        features = inputs.features[rows]
        chosen["linear_head_on_frozen_features"] = _best_linear(features, labels, folds)
    labels, groups = labels[judged], inputs.data.groups[rows][judged]
    result: dict[str, Any] = {"n": len(labels), "groups": len(np.unique(groups))}
    for name, figure in (("accuracy", _accuracy), ("balanced_accuracy", mean_recall)):
        of = {who: figure(labels, what) for who, what in chosen.items()}
        result[name] = {who: _interval(groups, each) for who, each in of.items()}
        for who, key in DIFFERENCES.items():
            if who in of:
                result[name][key] = _interval(groups, _difference(of["model"], of[who]))
    return result


def _best_linear(features: FloatArray, labels: IntArray, folds: IntArray) -> IntArray:
    return np.asarray(best_linear_scores(features, labels, folds).argmax(axis=1), dtype=np.int64)


def _accuracy(labels: IntArray, chosen: IntArray) -> Figure:
    return share_of(labels == chosen)


def _difference(first: Figure, second: Figure) -> Figure:
    return lambda counts: first(counts) - second(counts)


def _interval(groups: npt.NDArray[np.str_], figure: Figure) -> dict[str, float]:
    interval = grouped_bootstrap(groups, figure, BOOTSTRAP_SEED)
    if interval is None:
        raise ValueError("nothing to compare on")
    return interval.as_json()


def source_confound(inputs: Inputs, fold_count: int) -> dict[str, Any]:
    """How well the source, which should not matter, can be told from the picture.

    Empty where the data name fewer than two sources, or too few groups to tell.
    """
    names, sources = np.unique(inputs.data.sources, return_inverse=True)
    sources = np.asarray(sources, dtype=np.int64)
    groups = inputs.data.groups
    if len(names) < 2 or len(np.unique(groups)) < fold_count:  # noqa: PLR2004 -- none to confound
        return {}
    folds = grouped_folds(sources, groups, fold_count, inputs.seed)

    def told(features: FloatArray) -> dict[str, float]:
        chosen = _best_linear(features, sources, folds)
        return _interval(groups, share_of(chosen == sources))

    class_tells = np.zeros(len(sources), dtype=np.int64)
    for label in np.unique(inputs.data.labels):
        rows = inputs.data.labels == label
        class_tells[rows] = np.bincount(sources[rows]).argmax()
    found: dict[str, Any] = {
        "sources": {name: int(np.sum(sources == place)) for place, name in enumerate(names)},
        "accuracy_thumbnail_12x12": told(inputs.thumbnails),
        "accuracy_from_the_true_class_alone": round(float(np.mean(class_tells == sources)), 4),
    }
    if inputs.features is not None:
        found["accuracy_linear_head_on_frozen_features"] = told(inputs.features)
    return found
