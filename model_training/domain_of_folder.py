"""Give a model folder its domain: ``python -m model_training.domain_of_folder``.

The weights stay as they are, so the folder gets a new version: what it refuses is part of what it
does.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from inference_worker.domain import ClassMeans, write_reference
from inference_worker.evaluate import label_numbers
from inference_worker.labeled_pictures import read_manifest
from inference_worker.model_folder import (
    ModelFolder,
    load_model_folder,
    sha256_of,
    write_description,
)
from message_contracts.domain_check import DomainCheck, DomainMethod
from message_contracts.identifiers import derived_uid
from model_training.data_set import usable_rows
from model_training.domain_features import features_at, some_pictures
from model_training.domain_fit import FITS, Fitted, fit_domain, separation, with_kind
from model_training.folds import grouped_folds
from service_runtime.errors import CountersignError

FILE = "domain.npz"
METRICS = "metrics.json"
FOLDS = 5
OTHERS = 100
"""Pictures of each other set, by which methods and layers are compared."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, compare and write; 0 when it is done, 1 with the reason if not."""
    options = _parser().parse_args(arguments)
    try:
        folder = load_model_folder(options.model)
        compared = give_domain(folder, options)
    except CountersignError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- a command's answer
        return 1
    print(json.dumps(compared, indent=2))  # noqa: T201 -- a command's answer
    return 0


def give_domain(folder: ModelFolder, options: argparse.Namespace) -> dict[str, Any]:
    """Write ``domain.npz`` and describe it; return how the methods and layers compare.

    Only the train split is learned from. Other kinds of pictures are those of the train splits of
    the other sets: their validation splits are left for the figures that are reported.

    Raises
    ------
    CountersignError
        A manifest cannot be used.
    """
    described = folder.description
    network = keras.saving.load_model(folder.weights_path, compile=False)
    layers = tuple(dict.fromkeys((options.layer, *options.compare, described.grad_cam_layer)))
    kept, _ = usable_rows(options.data, options.exclude_licence)
    learned = tuple(row for row in kept if row.split == "train")
    inside = tuple(row for row in kept if row.split == "val")
    names = tuple(each.data_name or each.label for each in described.classes)
    labels = label_numbers(learned, names)
    groups = np.array([row.group_id for row in learned])
    folds = grouped_folds(labels, groups, FOLDS, options.seed)
    features = features_at(network, layers, learned, described.input)
    validation = features_at(network, layers, inside, described.input)
    outside = {
        other.name: features_at(
            network, layers, some_pictures(other, "train", OTHERS, options.seed), described.input
        )
        for other in options.other
    }
    phantoms = read_manifest(options.phantoms) if options.phantoms else ()
    compared: dict[str, Any] = {}
    for layer in layers:
        others = {name: each[layer] for name, each in outside.items()}
        for method in FITS:
            fitted = fit_domain(method, features[layer], labels, folds)
            compared[f"{method} at {layer}"] = separation(fitted, validation[layer], others)
            if (layer, method) == (options.layer, DomainMethod(options.method)):
                reference = fitted.reference
                if isinstance(reference, ClassMeans) and phantoms:
                    features_of_phantoms = features_at(
                        network, (layer,), phantoms, described.input
                    )[layer]
                    reference = with_kind(reference, features_of_phantoms)
                _write(folder, options, layer, replace(fitted, reference=reference))
    metrics = json.loads((folder.path / METRICS).read_text(encoding="utf-8"))
    metrics["domain_methods"] = compared
    metrics["phantoms_judged"] = bool(phantoms)
    (folder.path / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return compared


def _write(folder: ModelFolder, options: argparse.Namespace, layer: str, fitted: Fitted) -> None:
    file = folder.path / FILE
    write_reference(fitted.reference, file)
    check = DomainCheck(
        method=DomainMethod(options.method),
        layer=layer,
        file=FILE,
        sha256=sha256_of(file),
        threshold=round(fitted.threshold, 4),
        usual=fitted.usual,
    )
    described, version = folder.description, options.version
    uid = derived_uid("model", described.name, version, folder.weights_sha256)
    changes = {"domain": check, "version": version, "device_uid": uid}
    write_description(described.model_copy(update=changes), folder.path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="model_training.domain_of_folder",
        description="Fit what a model refuses as not of its kind.",
    )
    parser.add_argument("--model", type=Path, required=True, help="the model folder")
    parser.add_argument("--version", required=True, help="of the model with this domain")
    parser.add_argument("--data", type=Path, required=True, help="what it learned from")
    parser.add_argument("--exclude-licence", help="as it was when it learned")
    parser.add_argument(
        "--other", type=Path, action="append", default=[], help="pictures of another kind"
    )
    parser.add_argument("--layer", required=True, help="whose features are compared")
    parser.add_argument(
        "--compare", action="append", default=[], help="another layer, for the figures alone"
    )
    parser.add_argument(
        "--method", choices=[str(each) for each in FITS], default=str(DomainMethod.MAHALANOBIS)
    )
    parser.add_argument(
        "--phantoms", type=Path, help="pictures to judge although it did not learn from them"
    )
    parser.add_argument("--seed", type=int, default=20261121)
    return parser


if __name__ == "__main__":
    sys.exit(main())
