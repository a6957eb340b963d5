"""The whole training on drawn pictures, with a backbone of random weights."""

import json
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import yaml

from inference_worker.model_folder import load_model_folder
from inference_worker.predictor import Predictor
from model_training.__main__ import main
from model_training.architectures import BACKBONES
from model_training.cross_validation import Run, trained
from model_training.data_set import chosen_rows, load
from model_training.fitting import scores
from model_training.networks import (
    build_network,
    kernels_of,
    unmoved_kernels,
    with_temperature,
)
from model_training.recipe import RECIPES, load_recipe
from tests.tiny_model import LABELS, drawn_pictures

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(400)]
SIDE = 64


@pytest.fixture(scope="module")
def backbone_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((SIDE, SIDE, 3), name="picture")
    base = keras.applications.MobileNet(input_tensor=inputs, include_top=False, weights=None)
    base = keras.Model(inputs, base.get_layer("conv_dw_13_relu").output)
    file = tmp_path_factory.mktemp("backbone") / "mobilenet.weights.h5"
    base.save_weights(file)
    return file


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pictures, labels = drawn_pictures(48, seed=5)
    lines = ["file,class,patient_id,group_id,source,licence,split"]
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        group, licence = f"g{number // 2}", "CC BY-NC 4.0" if number >= 40 else "CC BY 4.0"
        source = ("kermany", "nih", "hannover")[number // 2 % 3]
        folder_class = LABELS[label].replace(" ", "_")
        lines.append(f"{number}.png,{folder_class},{group},{group},{source},{licence},train")
    (folder / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fields = yaml.safe_load((RECIPES / "chest-radiograph.yaml").read_text(encoding="utf-8"))
    fields["subgroups"] = fields["subgroups"][1:]
    fields["fine_tuning"] |= {"side": SIDE, "epochs": 1, "batch": 8}
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return file


def test_training_writes_a_model_folder_that_the_worker_loads(
    backbone_weights: Path,
    data_dir: Path,
    recipe: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "model"
    arguments = ["--data", str(data_dir), "--backbone-weights", str(backbone_weights)]
    arguments += ["--output", str(output), "--recipe", str(recipe), "--folds", "2"]
    arguments += ["--exclude-licence", "NC", "--work-dir", str(tmp_path / "work")]

    assert main(arguments) == 0

    folder = load_model_folder(output)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    card = (output / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert folder.description.training_data.picture_count == 40
    assert metrics["cross_validation"]["n"] == 40
    assert metrics["left_out_rows"]["n"] == 8
    assert metrics["kernels_moved"] == metrics["kernel_count"] == 27
    assert card.startswith("**Not for clinical use")
    assert "difference to the 12 x 12 thumbnail" in card
    (prediction,) = Predictor(folder).predict(np.zeros((1, SIDE, SIDE), dtype=np.uint8))
    assert len(prediction.probabilities) == 4


def test_a_finished_network_is_read_and_not_trained_again(
    backbone_weights: Path, data_dir: Path, recipe: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    run = Run(load_recipe(str(recipe)), backbone_weights, tmp_path, 1, said.append)
    kept, _ = chosen_rows(data_dir, None)
    data = load(kept, run.recipe.labels, SIDE)
    rows = np.arange(16)

    first = trained(run, data, rows, "final")
    again = trained(run, data, rows, "final")

    assert [line.split(":")[1].strip().split(" ")[0] for line in said] == ["epoch", "read"]
    np.testing.assert_array_equal(scores(first, data.pictures), scores(again, data.pictures))


def test_a_folder_that_is_no_data_set_is_refused(
    backbone_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(tmp_path), "--backbone-weights", str(backbone_weights)]

    code = main([*arguments, "--output", str(tmp_path / "m"), "--work-dir", str(tmp_path / "w")])

    assert code == 1
    assert "no manifest.csv" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_an_untrained_network_has_no_kernel_that_moved(backbone_weights: Path) -> None:
    network = build_network(BACKBONES["mobilenet_v1"], SIDE, 4, backbone_weights)
    before = kernels_of(network)

    assert set(unmoved_kernels(network, before)) == set(before)
    assert len(before) == 27


def test_a_temperature_changes_how_sure_and_not_what(backbone_weights: Path) -> None:
    network = build_network(BACKBONES["mobilenet_v1"], SIDE, 4, backbone_weights)
    pictures = np.random.default_rng(1).uniform(-1, 1, (3, SIDE, SIDE, 3)).astype(np.float32)

    sharp = np.log(network(pictures).numpy())
    soft = np.log(with_temperature(network, 2.0)(pictures).numpy())

    spread = sharp - sharp.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(soft - soft.mean(axis=1, keepdims=True), spread / 2, atol=1e-5)


def test_a_feature_cell_is_centered_on_what_it_sees(backbone_weights: Path) -> None:
    """Else a heat map would be drawn half a cell off."""
    inputs = keras.Input((224, 224, 3), name="picture")
    base = keras.applications.MobileNet(input_tensor=inputs, include_top=False, weights=None)
    base = keras.Model(inputs, base.get_layer("conv_dw_13_relu").output)
    file = backbone_weights.with_name("large.weights.h5")
    base.save_weights(file)
    network = build_network(BACKBONES["mobilenet_v1"], 224, 4, file)

    paddings = [
        layer.padding[0]
        for layer in network.layers
        if isinstance(layer, keras.layers.ZeroPadding2D)
    ]

    center, stride = 0.0, 1
    first_convolution_pads_below = (0, 1)
    for above, _ in (first_convolution_pads_below, *paddings):
        center += stride * (1 - above)
        stride *= 2
    assert stride == 32
    assert abs(center - (stride - 1) / 2) <= 1
