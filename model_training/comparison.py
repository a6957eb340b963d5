"""What the figures are worth: differences to baselines, subgroups, and the source confound."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_worker.classification_metrics import (
    Interval,
    accuracy,
    balanced_accuracy,
    grouped_bootstrap,
)
from inference_worker.evaluate import BOOTSTRAP_SEED
from model_training.baselines import best_linear_scores
from model_training.data_set import DataSet
from model_training.folds import grouped_folds
from model_training.recipe import Recipe

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Everything that is compared, row by row of one data set."""

    data: DataSet
    folds: IntArray
    model: FloatArray
    """Out-of-fold scores ``[n, classes]`` of the fine-tuned networks."""
    features: FloatArray
    """Pooled features of the frozen backbone."""
    thumbnails: FloatArray
    seed: int
    """Of the folds in which the source is told."""


def compare(recipe: Recipe, inputs: Inputs) -> dict[str, Any]:
    """Return the comparison as it stands in ``metrics.json``; all of it out of fold."""
    everything = np.ones(len(inputs.data.rows), dtype=np.bool_)
    found = {"all": _between(inputs, everything, tuple(range(len(recipe.classes))))}
    for subgroup in recipe.subgroups:
        places = tuple(recipe.labels.index(label) for label in subgroup.labels)
        rows = np.isin(inputs.data.sources, subgroup.sources)
        rows &= np.isin(inputs.data.labels, places)
        found[subgroup.name] = _between(inputs, rows, places)
    return {"comparison": found, "source_confound": _source_confound(inputs)}


def _between(
    inputs: Inputs, rows: npt.NDArray[np.bool_], places: tuple[int, ...]
) -> dict[str, Any]:
    """Compare on some rows, where only some classes may be chosen.

    The networks are those of the cross-validation over all rows; the baselines are fitted to these
    rows and classes alone, which is in their favor.
    """
    number = {place: index for index, place in enumerate(places)}
    labels = np.array([number[each] for each in inputs.data.labels[rows]], dtype=np.int64)
    groups, folds = inputs.data.groups[rows], inputs.folds[rows]
    model = inputs.model[rows][:, places].argmax(axis=1)
    head = best_linear_scores(inputs.features[rows], labels, folds).argmax(axis=1)
    thumbnail = best_linear_scores(inputs.thumbnails[rows], labels, folds).argmax(axis=1)
    result: dict[str, Any] = {"n": int(rows.sum()), "groups": len(np.unique(groups))}
    for name, figure in (("accuracy", accuracy), ("balanced_accuracy", balanced_accuracy)):

        def interval(first: IntArray, second: IntArray | None = None, figure: Any = figure) -> Any:
            return _interval(groups, labels, figure, first, second).as_json()

        result[name] = {
            "model": interval(model),
            "linear_head_on_frozen_features": interval(head),
            "thumbnail_12x12": interval(thumbnail),
            "model_minus_linear_head": interval(model, head),
            "model_minus_thumbnail": interval(model, thumbnail),
        }
    return result


def _interval(
    groups: npt.NDArray[np.str_],
    labels: IntArray,
    figure: Any,
    first: IntArray,
    second: IntArray | None,
) -> Interval:
    def of(rows: IntArray) -> float:
        value = float(figure(labels[rows], first[rows]))
        return value - float(figure(labels[rows], second[rows])) if second is not None else value

    return grouped_bootstrap(groups, of, BOOTSTRAP_SEED)


def _source_confound(inputs: Inputs) -> dict[str, Any]:
    """How well the source, which should not matter, can be told from the picture."""
    names, sources = np.unique(inputs.data.sources, return_inverse=True)
    sources = np.asarray(sources, dtype=np.int64)
    if len(names) < 2:  # noqa: PLR2004 -- one source confounds nothing
        return {}
    fold_count = int(inputs.folds.max()) + 1
    folds = grouped_folds(sources, inputs.data.groups, fold_count, inputs.seed)

    def told(features: FloatArray) -> dict[str, float]:
        chosen = best_linear_scores(features, sources, folds).argmax(axis=1)
        return _interval(inputs.data.groups, sources, accuracy, np.asarray(chosen), None).as_json()

    class_tells = np.zeros(len(sources), dtype=np.int64)
    for label in np.unique(inputs.data.labels):
        rows = inputs.data.labels == label
        class_tells[rows] = np.bincount(sources[rows]).argmax()
    return {
        "sources": {name: int(np.sum(sources == place)) for place, name in enumerate(names)},
        "accuracy_linear_head_on_frozen_features": told(inputs.features),
        "accuracy_thumbnail_12x12": told(inputs.thumbnails),
        "accuracy_from_the_true_class_alone": round(float(np.mean(class_tells == sources)), 4),
    }
