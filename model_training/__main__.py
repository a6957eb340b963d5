"""Make a model folder from a folder of labeled pictures: ``python -m model_training``."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference_worker.classification_metrics import REPLICATES
from inference_worker.evaluate import figures
from inference_worker.model_folder import load_model_folder, sha256_of, write_description
from inference_worker.predictor import Predictor
from message_contracts.identifiers import derived_uid
from message_contracts.model_description import ModelDescription, NetworkInput, TrainingData
from model_training.architectures import BACKBONES
from model_training.baselines import thumbnails
from model_training.calibration import best_temperature, uncertain_below
from model_training.comparison import Inputs, compare
from model_training.cross_validation import (
    Run,
    frozen_backbone_features,
    out_of_fold_scores,
    trained,
    untrained,
)
from model_training.data_set import DataSet, chosen_rows, load
from model_training.fitting import scores
from model_training.folds import grouped_folds
from model_training.linear_head import softmax
from model_training.model_card import model_card
from model_training.networks import kernels_of, unmoved_kernels, with_temperature
from model_training.recipe import Recipe, load_recipe
from service_runtime.errors import CountersignError

WEIGHTS = "weights.keras"
CARD = "MODEL_CARD.md"
METRICS = "metrics.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and write a model folder; 0 when it is written, 1 with the reason if not."""
    options = _parser().parse_args(arguments)
    began_s = time.monotonic()

    def report(line: str) -> None:
        print(f"[{time.monotonic() - began_s:6.0f} s] {line}", flush=True)  # noqa: T201 -- progress

    try:
        recipe = load_recipe(options.recipe)
        run = Run(recipe, options.backbone_weights, options.work_dir, options.seed, report)
        make_model_folder(run, options)
    except CountersignError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- a command's answer
        return 1
    return 0


def make_model_folder(run: Run, options: argparse.Namespace) -> None:
    """Cross-validate, fit on all rows, calibrate, compare, and write the folder.

    Raises
    ------
    CountersignError
        The recipe or the manifest cannot be used.
    """
    recipe = run.recipe
    run.work_dir.mkdir(parents=True, exist_ok=True)
    kept, left_out = chosen_rows(options.data, options.exclude_licence)
    data = load(kept, recipe.labels, recipe.fine_tuning.side)
    run.report(f"{len(kept)} pictures to learn from, {len(left_out)} left out for their license")
    folds = grouped_folds(data.labels, data.groups, options.folds, run.seed)
    out_of_fold = out_of_fold_scores(run, data, folds)
    network = trained(run, data, np.arange(len(kept)), "final")
    temperature = best_temperature(out_of_fold, data.labels)
    probabilities = softmax(out_of_fold / temperature)
    threshold = uncertain_below(probabilities, data.labels, recipe.uncertain_target)
    run.report(f"temperature {temperature:.3f}, uncertain below {threshold}; comparing")
    before = kernels_of(untrained(run))
    inputs = Inputs(
        data=data,
        folds=folds,
        model=out_of_fold,
        features=frozen_backbone_features(run, data),
        thumbnails=thumbnails(data.pictures),
        seed=run.seed,
    )
    groups, names = data.groups, recipe.labels
    metrics: dict[str, Any] = {
        "seed": run.seed,
        "bootstrap_replicates": REPLICATES,
        "data": {
            "learned_from": len(kept),
            "groups": len(np.unique(groups)),
            "left_out": len(left_out),
        },
        "kernel_count": len(before),
        "kernels_moved": len(before) - len(unmoved_kernels(network, before)),
        "temperature": round(temperature, 4),
        "cross_validation": {"folds": options.folds}
        | figures(data.labels, probabilities, groups, names, threshold),
        **compare(recipe, inputs),
        "left_out_rows": _left_out_figures(run, network, data, left_out, (temperature, threshold)),
    }
    _write(recipe, with_temperature(network, temperature), metrics, options.output)
    run.report(f"{options.output} written")


def _left_out_figures(
    run: Run,
    network: Any,
    data: DataSet,
    left_out: tuple[Any, ...],
    calibration: tuple[float, float],
) -> dict[str, Any]:
    """Judge the final network on what it may not learn from, without the patients that it knows."""
    temperature, threshold = calibration
    known = set(data.groups)
    rows = tuple(row for row in left_out if row.group_id not in known)
    if not rows:
        return {}
    other = load(rows, run.recipe.labels, run.recipe.fine_tuning.side)
    probabilities = softmax(scores(network, other.pictures) / temperature)
    found = figures(other.labels, probabilities, other.groups, run.recipe.labels, threshold)
    return found | {"sources": sorted(set(other.sources))}


def _write(recipe: Recipe, network: Any, metrics: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    weights = output / WEIGHTS
    network.save(weights)
    digest = sha256_of(weights)
    whole = metrics["cross_validation"]
    against = metrics["comparison"]["all"]["accuracy"]
    side = recipe.fine_tuning.side
    description = ModelDescription(
        name=recipe.name,
        version=recipe.version,
        device_uid=derived_uid("model", recipe.name, recipe.version, digest),
        intended_use=recipe.intended_use,
        limits=recipe.limits,
        applies_to=recipe.applies_to,
        input=NetworkInput(rows=side, columns=side, channels=3, multiply=1 / 127.5, add=-1.0),
        classes=recipe.classes,
        uncertain_below=whole["uncertain"]["below"],
        grad_cam_layer=BACKBONES[recipe.fine_tuning.backbone].last_layer,
        license=recipe.license,
        training_data=TrainingData(
            description=recipe.data_description,
            license=recipe.data_license,
            picture_count=metrics["data"]["learned_from"],
        ),
        metrics={
            "cross_validated_accuracy": whole["accuracy"]["estimate"],
            "cross_validated_balanced_accuracy": whole["balanced_accuracy"]["estimate"],
            "accuracy_minus_thumbnail": against["model_minus_thumbnail"]["estimate"],
            "accuracy_minus_thumbnail_lower": against["model_minus_thumbnail"]["lower"],
            "accuracy_minus_linear_head": against["model_minus_linear_head"]["estimate"],
            "accuracy_minus_linear_head_lower": against["model_minus_linear_head"]["lower"],
        },
        weights=WEIGHTS,
        weights_sha256=digest,
    )
    write_description(description, output)
    (output / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    card = model_card(recipe, description, metrics)
    (output / CARD).write_text(card, encoding="utf-8")
    Predictor(load_model_folder(output))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="model_training", description="Make a model folder from labeled pictures."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument(
        "--backbone-weights", type=Path, required=True, help="ImageNet weights, .h5"
    )
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--recipe", default="chest-radiograph", help="name of ours, or a file")
    parser.add_argument("--exclude-licence", help="leave rows out whose license has this, e.g. NC")
    parser.add_argument("--folds", type=int, default=5, help="of the patient-grouped validation")
    parser.add_argument("--seed", type=int, default=20261120)
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("build/training"),
        help="finished folds are kept here; run again, they are not trained again",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
