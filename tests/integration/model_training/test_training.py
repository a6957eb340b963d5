"""The whole training on drawn pictures, with a base that trains in a second."""

import json
import os
import signal
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
import yaml

from inference_worker.labeled_pictures import read_picture
from inference_worker.model_folder import load_model_folder
from inference_worker.predictor import Predictor
from model_training.__main__ import main
from model_training.architectures import BACKBONES
from model_training.checkpoint import Checkpoint
from model_training.cross_validation import Run, trained
from model_training.data_set import DataSet, chosen_rows, load
from model_training.domain_of_folder import main as give_domain
from model_training.fitting import Stopped, scores
from model_training.progress import Reporter
from model_training.recipe import RECIPES, load_recipe
from tests.tiny_backbone import TINY, save_tiny_weights
from tests.tiny_model import LABELS, drawn_pictures

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(900)]
SIDE = 64


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "mobilenet_v2", TINY)


@pytest.fixture(autouse=True)
def other_tests_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the command from setting for this process what would hold for the tests after it."""
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)


@pytest.fixture(scope="module")
def backbone_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_weights(tmp_path_factory.mktemp("backbone") / "tiny.weights.h5", SIDE)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pictures, labels = drawn_pictures(64, seed=5)
    lines = ["file,class,patient_id,group_id,source,licence,split"]
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        group, licence = f"g{number // 2}", "CC BY-NC 4.0" if number >= 56 else "CC BY 4.0"
        source = ("kermany", "nih", "hannover")[number // 2 % 3]
        split = "val" if 40 <= number < 56 else "train"
        folder_class = LABELS[label].replace(" ", "_")
        lines.append(f"{number}.png,{folder_class},{group},{group},{source},{licence},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fields = yaml.safe_load((RECIPES / "chest-radiograph.yaml").read_text(encoding="utf-8"))
    fields["subgroups"] = fields["subgroups"][1:]
    fields["fine_tuning"] |= {"backbone": "mobilenet_v2", "side": SIDE, "epochs": 2, "batch": 8}
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return file


def test_a_recipe_becomes_a_folder_that_the_worker_loads_and_that_a_domain_fits(
    backbone_weights: Path, data_dir: Path, recipe: Path, tmp_path: Path
) -> None:
    output, work = tmp_path / "model", tmp_path / "work"
    arguments = ["--data", str(data_dir), "--backbone-weights", str(backbone_weights)]
    arguments += ["--output", str(output), "--recipe", str(recipe), "--folds", "2"]
    arguments += ["--exclude-licence", "NC", "--work-dir", str(work)]

    assert main(arguments) == 0

    folder = load_model_folder(output)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    card = (output / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert folder.description.training_data.picture_count == 40
    assert metrics["cross_validation"]["n"] == 40
    assert metrics["validation"]["n"] == 16
    assert metrics["held_out_comparison"]["all"]["n"] == 16
    assert metrics["left_out_rows"]["n"] == 8
    assert metrics["kernels_moved"] == metrics["kernel_count"] == 3
    assert card.startswith("**Not for clinical use")
    assert "difference to the 12 x 12 thumbnail" in card
    assert "here each fifth of their patients is calibrated by the rest" in card
    assert "They chose" not in card
    offsets = metrics["calibration"]["offsets"]
    assert set(offsets) == set(folder.description.labels)
    assert sum(offsets.values()) == pytest.approx(0, abs=1e-3)
    assert f"the temperature {metrics['calibration']['temperature']:.2f}" in card
    assert all(f"{label} {offset:+.2f}" in card for label, offset in offsets.items())
    (prediction,) = Predictor(folder).predict(np.zeros((1, SIDE, SIDE), dtype=np.uint8))
    assert len(prediction.probabilities) == 4
    in_folder = {each.name for each in output.iterdir()}
    assert in_folder == {
        *("MODEL_CARD.md", "metrics.json", "model.yaml", "weights.keras"),
        *("training_curves.png", "confusion_matrix.png", "reliability.png"),
    }
    assert read_picture(work / "worst_errors.png", 3).shape[1] == 3 * 420

    of_kind = ["--data", str(data_dir), "--other", str(data_dir), "--layer", "features"]
    assert (
        give_domain(
            [*of_kind, "--exclude-licence", "NC", "--model", str(output), "--version", "9.9.9"]
        )
        == 0
    )
    domain = load_model_folder(output).description.domain
    assert domain is not None
    assert domain.usual is not None
    assert domain.usual.picture_count == 40
    (figures, _) = json.loads((output / "metrics.json").read_text())["domain_methods"].values()
    assert figures["threshold"] == pytest.approx(domain.threshold, abs=1e-4)


class Cut(BaseException):
    """The power fails."""


def a_run(recipe: Path, weights: Path, work_dir: Path, **fine_tuning: object) -> Run:
    chosen = load_recipe(str(recipe)).with_fine_tuning(fine_tuning)
    reporter = Reporter(StringIO(), StringIO())
    return Run(chosen, weights, work_dir, 1, reporter, checkpoint_every_s=0.0)


def some_data(run: Run, data_dir: Path) -> tuple[DataSet, DataSet]:
    kept, _ = chosen_rows(data_dir, None)
    data = load(kept, run.recipe)
    return data.only(np.arange(30)), data.only(np.arange(30, 40))


@pytest.mark.parametrize(("cut_after", "by_signal", "patience"), [(2, True, None), (7, False, 1)])
def test_a_training_that_was_cut_off_ends_as_one_that_was_not(
    backbone_weights: Path,
    data_dir: Path,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    cut_after: int,
    by_signal: bool,
    patience: int | None,
) -> None:
    """Four steps an epoch, each kept and the epoch's end too: both cuts are between the ends."""
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    settings = {"epochs": 3, "batch": 8, "patience": patience, "balance_by": "sampling"}
    whole = a_run(recipe, backbone_weights, tmp_path / "whole", **settings)
    learned, validation = some_data(whole, data_dir)
    uninterrupted = trained(whole, learned, validation, "final")
    run = a_run(recipe, backbone_weights, tmp_path / "cut", **settings)
    save = Checkpoint.save
    saved = []

    def save_and_cut(checkpoint: Checkpoint, *arguments: object) -> None:
        save(checkpoint, *arguments)
        saved.append(1)
        if len(saved) == cut_after and by_signal:
            os.kill(os.getpid(), signal.SIGTERM)
        elif len(saved) == cut_after:
            raise Cut

    monkeypatch.setattr(Checkpoint, "save", save_and_cut)
    with pytest.raises(Stopped if by_signal else Cut):
        trained(run, learned, validation, "final")
    monkeypatch.setattr(Checkpoint, "save", save)

    resumed = trained(run, learned, validation, "final")

    assert resumed.history == uninterrupted.history
    for ours, theirs in zip(
        resumed.network.get_weights(), uninterrupted.network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert {each.suffix for each in (tmp_path / "cut").iterdir()} == {".keras", ".json"}


def test_a_finished_network_is_read_and_not_trained_again(
    backbone_weights: Path, data_dir: Path, recipe: Path, tmp_path: Path
) -> None:
    run = a_run(recipe, backbone_weights, tmp_path, epochs=1)
    learned, validation = some_data(run, data_dir)
    first = trained(run, learned, validation, "final")

    again = trained(run, learned, validation, "final")

    assert again.history == first.history
    np.testing.assert_array_equal(
        scores(first.network, learned.pictures), scores(again.network, learned.pictures)
    )


def test_other_pictures_are_not_taken_for_the_same(
    backbone_weights: Path, data_dir: Path, recipe: Path, tmp_path: Path
) -> None:
    run = a_run(recipe, backbone_weights, tmp_path, epochs=1)
    learned, validation = some_data(run, data_dir)
    trained(run, learned, validation, "final")

    trained(run, learned.only(np.arange(20)), validation, "final")

    assert len(list(tmp_path.glob("final-*.keras"))) == 2


@pytest.mark.parametrize(
    ("files", "fault"),
    [((), "no manifest.csv"), (("X/a.png", "X/b.png", "X/c.png"), "at least two are needed")],
)
def test_a_folder_that_is_no_data_set_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: tuple[str, ...], fault: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in files:
        (data / file).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(data / file), np.zeros((8, 8), dtype=np.uint8))

    code = main(["--data", str(data), "--output", str(tmp_path / "m"), "--work-dir", str(tmp_path)])

    assert code == 1
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_setting_that_cannot_be_is_named(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(data_dir), "--output", str(tmp_path / "m"), "--side", "100"]

    assert main(arguments) == 1
    assert "side" in capsys.readouterr().err
