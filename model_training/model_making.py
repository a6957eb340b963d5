"""From labeled pictures to a model folder: train, judge, describe, and try it as a worker would."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from inference_worker.grouped_intervals import REPLICATES
from inference_worker.labeled_pictures import InvalidManifest
from inference_worker.model_folder import load_model_folder, sha256_of, write_description
from inference_worker.predictor import Predictor
from message_contracts.identifiers import derived_uid
from message_contracts.model_description import ModelDescription, NetworkInput, TrainingData
from model_training.architectures import BACKBONES
from model_training.cross_validation import (
    Run,
    Trained,
    frozen_backbone_features,
    trained,
    untrained,
)
from model_training.data_set import load, parts_of, usable_rows
from model_training.error_gallery import ERRORS, draw_gallery, worst_errors, write_gallery
from model_training.judging import (
    Judged,
    Parted,
    cross_validated,
    judge,
    judge_left_out,
    with_folds,
)
from model_training.model_card import CONFUSION, CURVES, RELIABILITY, model_card
from model_training.networks import kernels_of, unmoved_kernels, with_calibration
from model_training.plots import draw_confusion, draw_curves, draw_reliability
from model_training.recipe import InvalidRecipe, Recipe, faults_of
from model_training.splitting import Part

WEIGHTS = "weights.keras"
CARD = "MODEL_CARD.md"
METRICS = "metrics.json"
NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class Asked:
    """What the user asked for, beside the run."""

    data: Path
    output: Path
    exclude_licence: str | None
    folds: int
    """0: no cross-validation."""


def make_model_folder(run: Run, asked: Asked) -> None:
    """Train, measure and write the folder; the errors that it makes go to the work folder.

    Raises
    ------
    CountersignError
        The recipe, the backbone weights or the data cannot be used; nothing is written.
    Stopped
        Somebody asked for an end; the same call goes on.
    """
    recipe = run.recipe
    describe(recipe, NO_DIGEST, 1, {}, 0.5)  # so that nobody trains for a day and hears it then
    run.work_dir.mkdir(parents=True, exist_ok=True)
    kept, left_out = usable_rows(asked.data, asked.exclude_licence)
    parts, given = parts_of(kept, recipe.data_names, run.seed)
    data = load(kept, recipe)
    if run.backbone_weights:
        data = replace(data, features=frozen_backbone_features(run, data))
    parted = _parted(run, asked.folds, data, parts)
    counts = {part: int(np.sum(parts == part)) for part in Part}
    run.reporter.line(
        f"{counts[Part.TRAIN]} pictures to learn from, {counts[Part.VALIDATION]} to validate and"
        f" {counts[Part.TEST]} to test on; {len(left_out)} left out for their license"
    )
    if not any(row.grouped for row in kept):
        run.reporter.line(
            "no column says which pictures share a patient: each is taken to be a patient of its"
            " own, and figures flatter where that is not so (group_id, docs/models.md)"
        )
    out_of_fold = cross_validated(run, parted)
    learned = parted.data.only(parted.rows(Part.TRAIN))
    final = trained(run, learned, parted.only(Part.VALIDATION), "final")
    judged = judge(run, parted, final.network, out_of_fold)
    before = kernels_of(untrained(run))
    metrics: dict[str, Any] = {
        "seed": run.seed,
        "bootstrap_replicates": REPLICATES,
        "data": {
            "learned_from": counts[Part.TRAIN],
            "validated_on": counts[Part.VALIDATION],
            "tested_on": counts[Part.TEST],
            "split": "as the data say" if given else "70/15/15 by group",
            "validation_chose": recipe.fine_tuning.patience is not None or not asked.folds,
            "groups_said": any(row.grouped for row in kept),
            "groups": len(np.unique(learned.groups)),
            "left_out": len(left_out),
        },
        "kernel_count": len(before),
        "kernels_moved": len(before) - len(unmoved_kernels(final.network, before)),
        "backbone_weights": run.backbone_weights.name if run.backbone_weights else None,
        "epochs": {
            "run": len(final.history),
            "kept": final.chosen(recipe.fine_tuning),
        },
        "primary": judged.primary,
        **judged.metrics,
        "left_out_rows": judge_left_out(
            run, final.network, judged, parted.data, load(left_out, recipe)
        )
        if left_out
        else {},
    }
    _write(run, parted, final, judged, metrics, asked.output)


def _parted(run: Run, fold_count: int, data: Any, parts: Any) -> Parted:
    try:
        return with_folds(data, parts, fold_count, run.seed)
    except ValueError as error:
        raise InvalidManifest(f"--folds: {error}") from error


def describe(
    recipe: Recipe, digest: str, picture_count: int, metrics: dict[str, float], threshold: float
) -> ModelDescription:
    """Return the content of ``model.yaml``.

    Raises
    ------
    InvalidRecipe
        A field of the recipe is none that a model may have.
    """
    how = recipe.fine_tuning
    try:
        return ModelDescription(
            name=recipe.name,
            version=recipe.version,
            device_uid=derived_uid("model", recipe.name, recipe.version, digest),
            intended_use=recipe.intended_use,
            limits=recipe.limits,
            applies_to=recipe.applies_to,
            reads=recipe.reads,
            input=NetworkInput(
                rows=how.side, columns=how.side, channels=3, multiply=1 / 127.5, add=-1.0
            ),
            classes=recipe.classes,
            uncertain_below=threshold,
            grad_cam_layer=BACKBONES[how.backbone].last_layer,
            license=recipe.license,
            training_data=TrainingData(
                description=recipe.data_description,
                license=recipe.data_license,
                picture_count=picture_count,
            ),
            metrics=metrics,
            weights=WEIGHTS,
            weights_sha256=digest,
        )
    except ValidationError as error:
        raise InvalidRecipe(f"recipe: {faults_of(error)}") from error


def short_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the figures that ``model.yaml`` names, each after how it was measured."""
    primary = metrics["primary"]
    prefix = {"cross_validation": "cross_validated"}.get(primary, primary)
    whole = metrics[primary]
    found = {
        f"{prefix}_accuracy": whole["accuracy"]["estimate"],
        f"{prefix}_balanced_accuracy": whole["balanced_accuracy"]["estimate"],
        f"{prefix}_calibration_error": whole["expected_calibration_error"],
    }
    key = "comparison" if primary == "cross_validation" else "held_out_comparison"
    against = metrics[key]["all"]["accuracy"]
    for name in ("thumbnail", "linear_head"):
        if f"model_minus_{name}" in against:
            difference = against[f"model_minus_{name}"]
            found[f"accuracy_minus_{name}"] = difference["estimate"]
            found[f"accuracy_minus_{name}_lower"] = difference["lower"]
    return found


def _write(
    run: Run,
    parted: Parted,
    final: Trained,
    judged: Judged,
    metrics: dict[str, Any],
    output: Path,
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    weights = output / WEIGHTS
    with_calibration(final.network, judged.calibration).save(weights)
    recipe, count = run.recipe, metrics["data"]["learned_from"]
    description = describe(
        recipe, sha256_of(weights), count, short_metrics(metrics), judged.uncertain_below
    )
    write_description(description, output)
    (output / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    card = model_card(recipe, description, metrics)
    (output / CARD).write_text(card, encoding="utf-8")
    shown = metrics[judged.primary]
    draw_curves(final.history, metrics["epochs"]["kept"], output / CURVES)
    draw_confusion(shown, output / CONFUSION)
    rows = parted.data.only(judged.rows)
    draw_reliability(rows.labels, judged.probabilities, shown, output / RELIABILITY)
    folder = load_model_folder(output)
    wrong = worst_errors(rows, judged.probabilities)
    gallery = draw_gallery(folder, Predictor(folder), rows, wrong)
    run.reporter.line(f"{output} written")
    if gallery is not None:
        write_gallery(gallery, run.work_dir / ERRORS)
        run.reporter.line(f"the worst errors, with pictures of the data: {run.work_dir / ERRORS}")
    for line in recipe.to_fill_in:
        run.reporter.line(f"to fill in: {line}")
