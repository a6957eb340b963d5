"""Make a model folder from labeled pictures: ``python -m model_training``."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import tensorflow as tf

from inference_worker.labeled_pictures import read_manifest
from model_training.cross_validation import Run
from model_training.default_recipe import default_recipe
from model_training.fitting import Stopped
from model_training.progress import Reporter
from model_training.recipe import Architecture, Recipe, load_recipe
from service_runtime.errors import CountersignError, PermanentError

STOPPED = 130
"""What a shell says of a command that SIGINT ended."""


class NotInstalled(PermanentError):
    """Something that only training needs is not installed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and write a model folder.

    Returns 0 when it is written, 1 with the reason if it cannot be, 130 when it was stopped.
    """
    options = _parser().parse_args(arguments)
    try:
        if importlib.util.find_spec("matplotlib") is None:
            raise NotInstalled("training draws its figures: pip install 'countersign[training]'")
        # Imported here, for it imports Matplotlib.
        from model_training.model_making import Asked, make_model_folder  # noqa: PLC0415

        # So that a training that was stopped ends as one that was not.
        tf.config.experimental.enable_op_determinism()
        recipe = _recipe(options)
        work_dir = options.work_dir or Path("runs") / recipe.name
        run = Run(recipe, options.backbone_weights, work_dir, options.seed, Reporter())
        make_model_folder(
            run, Asked(options.data, options.output, options.exclude_licence, options.folds)
        )
    except CountersignError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- a command's answer
        return 1
    except Stopped:
        print("stopped; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return STOPPED
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    """Return the recipe that was named, or one for these data, with what was asked for in it."""
    if options.recipe:
        recipe = load_recipe(options.recipe)
    else:
        architecture: Architecture = options.architecture or "mobilenet_v2"
        rows = read_manifest(options.data)
        recipe = default_recipe(options.output.resolve().name, rows, architecture)
    asked = {
        "backbone": options.architecture,
        "epochs": options.epochs,
        "batch": options.batch,
        "side": options.side,
        "learning_rate": options.learning_rate,
        "optimizer": options.optimizer,
        "schedule": options.schedule,
        "augmentation": options.augmentation,
        "balance_by": options.balance_by,
        "patience": options.patience,
    }
    return recipe.with_fine_tuning({name: each for name, each in asked.items() if each is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="countersign train", description="Make a model folder from labeled pictures."
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="a folder for each class, a folder with manifest.csv, or a CSV file",
    )
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write")
    parser.add_argument(
        "--backbone-weights",
        type=Path,
        help="weights of the architecture without its top, .h5; else it starts from random ones",
    )
    parser.add_argument(
        "--recipe", help="all that data cannot say: one of ours by name, or a YAML file"
    )
    parser.add_argument("--exclude-licence", help="leave rows out whose license has this, e.g. NC")
    parser.add_argument(
        "--folds", type=int, default=0, help="of a cross-validation by patient; 0: none"
    )
    parser.add_argument("--seed", type=int, default=20261120, help="of all that is random")
    parser.add_argument(
        "--work-dir",
        type=Path,
        help="where a training goes on after it was stopped [runs/NAME]",
    )
    settings = parser.add_argument_group(
        "settings", "Each takes the place of what the recipe says, or of the default."
    )
    settings.add_argument("--architecture", choices=get_args(Architecture))
    settings.add_argument("--epochs", type=int, help="at most")
    settings.add_argument("--batch", type=int, help="pictures in a step")
    settings.add_argument("--side", type=int, help="rows and columns of the input")
    settings.add_argument("--learning-rate", type=float, help="the peak")
    settings.add_argument("--optimizer", choices=("adamw", "adam", "sgd"))
    settings.add_argument("--schedule", choices=("cosine", "linear", "constant"))
    settings.add_argument("--augmentation", choices=("none", "radiograph", "any_orientation"))
    settings.add_argument("--balance-by", choices=("loss", "sampling"))
    settings.add_argument("--patience", type=int, help="epochs without a lower validation loss")
    return parser


if __name__ == "__main__":
    sys.exit(main())
