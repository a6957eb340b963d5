"""Measure a model on a folder of labeled pictures: ``countersign models evaluate``."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_worker.classification_metrics import (
    calibrated_ece_limit,
    confusion,
    expected_calibration_error,
    roc_auc,
)
from inference_worker.grouped_intervals import (
    Figure,
    area,
    grouped_bootstrap,
    mean_recall,
    share_of,
)
from inference_worker.labeled_pictures import (
    InvalidManifest,
    LabeledPicture,
    read_manifest,
    read_picture_batch,
)
from inference_worker.model_folder import ModelFolder
from inference_worker.predictor import Predictor

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BATCH = 16
BOOTSTRAP_SEED = 20260101


def evaluate(folder: ModelFolder, data_dir: Path) -> dict[str, Any]:
    """Classify every picture of a manifest and return the figures, ready for JSON.

    The manifest's class names are the model's labels; an underscore is read as a space.

    Raises
    ------
    InvalidManifest
        The manifest cannot be used, is empty, or names a class that the model has not.
    InvalidModelFolder
        The network cannot be loaded.
    """
    description = folder.description
    pictures = read_manifest(data_dir)
    labels = label_numbers(pictures, description.labels)
    predictor = Predictor(folder)
    shape = (description.input.rows, description.input.columns, description.input.channels)
    found = [
        predictor.classify(read_picture_batch(pictures[start : start + BATCH], shape))
        for start in range(0, len(pictures), BATCH)
    ]
    groups = np.array([picture.group_id for picture in pictures])
    model = {
        "name": description.name,
        "version": description.version,
        "weights_sha256": folder.weights_sha256,
    }
    answered = description.uncertain_below
    return {"model": model} | figures(
        labels, np.concatenate(found), groups, description.labels, answered
    )


def label_numbers(pictures: tuple[LabeledPicture, ...], labels: tuple[str, ...]) -> IntArray:
    """Return the place of each picture's class among the model's; case does not matter.

    Raises
    ------
    InvalidManifest
        There is no picture, or a class that the model has not.
    """
    if not pictures:
        raise InvalidManifest("manifest.csv: no row")
    number = {label.casefold(): place for place, label in enumerate(labels)}
    unknown = sorted({each.label for each in pictures if each.label.casefold() not in number})
    if unknown:
        raise InvalidManifest(
            f"manifest.csv: class {', '.join(unknown)} is none of {', '.join(labels)}"
        )
    return np.array([number[each.label.casefold()] for each in pictures], dtype=np.int64)


def figures(
    labels: IntArray,
    probabilities: FloatArray,
    groups: npt.NDArray[np.str_],
    names: tuple[str, ...],
    uncertain_below: float,
) -> dict[str, Any]:
    """Return the figures of one set of predictions; intervals are 95 %, resampled by group."""
    chosen = np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
    sure = probabilities.max(axis=1) >= uncertain_below
    areas = [roc_auc(labels == place, probabilities[:, place]) for place in range(len(names))]
    known = [value for value in areas if value is not None]

    def over(figure: Figure) -> dict[str, float] | None:
        interval = grouped_bootstrap(groups, figure, BOOTSTRAP_SEED)
        return interval.as_json() if interval else None

    def of_class(place: int) -> dict[str, Any]:
        of_it, took_it = labels == place, chosen == place
        intervals = {
            "sensitivity": over(share_of(took_it, of_it)),
            "specificity": over(share_of(~took_it, ~of_it)),
            "roc_auc": over(area(of_it, probabilities[:, place])),
        }
        bounds = {name: [each["lower"], each["upper"]] for name, each in intervals.items() if each}
        estimates = {name: each and each["estimate"] for name, each in intervals.items()}
        return {"label": names[place], "n": int(of_it.sum()), **estimates, "intervals": bounds}

    return {
        "n": len(labels),
        "groups": len(np.unique(groups)),
        "accuracy": over(share_of(labels == chosen)),
        "balanced_accuracy": over(mean_recall(labels, chosen)),
        "roc_auc_macro": round(float(np.mean(known)), 4) if known else None,
        "expected_calibration_error": round(expected_calibration_error(labels, probabilities), 4),
        "calibrated_ece_limit": _rounded(
            calibrated_ece_limit(probabilities.max(axis=1), BOOTSTRAP_SEED)
        ),
        "uncertain": {
            "below": uncertain_below,
            "share": round(float(1 - sure.mean()), 4),
            "accuracy_of_the_rest": _rounded(np.mean(labels[sure] == chosen[sure]))
            if sure.any()
            else None,
        },
        "classes": [of_class(place) for place in range(len(names))],
        "confusion": {
            "rows": "true class",
            "columns": "class with the highest probability",
            "labels": list(names),
            "counts": confusion(labels, chosen, len(names)).tolist(),
        },
    }


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
