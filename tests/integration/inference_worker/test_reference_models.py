"""The models that are shipped: whole, honest, and ours in every kernel."""

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from inference_worker.model_folder import ModelFolder, load_model_folder
from inference_worker.predictor import Predictor
from model_training.model_card import CONFUSION, CURVES, RELIABILITY
from model_training.networks import build_network, kernels_of, unmoved_kernels
from model_training.recipe import load_recipe

pytestmark = pytest.mark.tensorflow
CHECKOUT = Path(__file__).parents[3]
MODELS = CHECKOUT / "models"
DATA = Path(os.environ.get("COUNTERSIGN_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
BACKBONE = "mobilenet_v1_1.0_224_imagenet_float32_to_conv_dw_13.weights.h5"
LARGEST_BYTES = 20_000_000
FILES = {"model.yaml", "weights.keras", "domain.npz", "metrics.json", "MODEL_CARD.md"}
FIGURES = {CURVES, CONFUSION, RELIABILITY}
NON_COMMERCIAL = "skin-lesion"
PROBES = {
    "chest-radiograph": (0.83, 0.75),
    "brain-mr-tumor": (0.84, 0.63),
    "breast-ultrasound": (0.81, 0.62),
    "skin-lesion": (0.66, 0.34),
}
"""Accuracy of a linear head on frozen features, and of one on a thumbnail, known beforehand."""


def metrics_of(folder: ModelFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.path / "metrics.json").read_text(encoding="utf-8"))
    return found


def card_of(folder: ModelFolder) -> str:
    return (folder.path / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=sorted(path.name for path in MODELS.iterdir()))
def folder(request: pytest.FixtureRequest) -> ModelFolder:
    return load_model_folder(MODELS / request.param)


def test_it_loads_and_reads_a_picture(folder: ModelFolder) -> None:
    takes = folder.description.input
    noise = np.random.default_rng(1).integers(0, 256, (2, takes.rows, takes.columns), np.uint8)

    predictions = Predictor(folder).predict(noise)

    assert len(predictions) == 2
    assert all(np.isfinite(each.probabilities).all() for each in predictions)
    assert all(each.cam.max() <= 1 for each in predictions)


def test_every_network_has_moved_every_kernel(folder: ModelFolder) -> None:
    weights = DATA.parent / "weights" / BACKBONE
    if not weights.is_file():
        pytest.skip("the ImageNet weights that training starts from are not on this machine")
    how = load_recipe(folder.description.name).fine_tuning
    before = kernels_of(build_network(how, len(folder.description.classes), weights))

    shipped = keras.saving.load_model(folder.weights_path, compile=False)

    assert unmoved_kernels(shipped, before) == ()
    # Channels that are dead in the ImageNet weights have no gradient and stay; the first layers of
    # this backbone have a quarter of such.
    for path, kernel in kernels_of(shipped).items():
        assert np.mean(kernel != before[path]) > 0.7, path


def test_it_beats_the_thumbnail_by_grouped_cross_validation(folder: ModelFolder) -> None:
    compared = metrics_of(folder)["comparison"]["all"]

    for figure in ("accuracy", "balanced_accuracy"):
        assert compared[figure]["model_minus_thumbnail"]["lower"] > 0


def test_it_beats_what_was_known_before_on_the_validation_part(folder: ModelFolder) -> None:
    metrics = metrics_of(folder)

    assert metrics["validation"]["accuracy"]["estimate"] > max(PROBES[folder.description.name])
    compared = metrics["held_out_comparison"]["all"]["accuracy"]
    assert compared["model_minus_thumbnail"]["lower"] > 0


def test_its_calibration_error_is_no_more_than_chance(folder: ModelFolder) -> None:
    metrics = metrics_of(folder)
    parts = [metrics[part] for part in ("cross_validation", "validation")]
    known = [each for each in parts if "calibrated_ece_limit" in each]

    assert known
    for each in known:
        assert each["expected_calibration_error"] <= each["calibrated_ece_limit"]


def test_it_refuses_what_is_not_of_its_kind(folder: ModelFolder) -> None:
    refusal = metrics_of(folder)["refusal"]

    assert refusal["in_domain"]["share"] <= 0.05
    assert refusal["wrong_domain"]["n"] >= 200
    assert refusal["wrong_domain"]["share"] >= 0.95
    assert refusal["dicom"]["share"] >= 0.95
    assert folder.description.domain is not None
    assert refusal["domain"]["sha256"] == folder.description.domain.sha256
    assert refusal["version"] == folder.description.version


def test_the_first_line_of_the_card_says_that_it_is_not_for_clinical_use_and_why(
    folder: ModelFolder,
) -> None:
    first, *rest = card_of(folder).splitlines()

    assert first.startswith("**Not for clinical use")
    assert "no clinical claim can be supported" in first
    assert load_recipe(folder.description.name).warning in first
    assert "difference to the 12 x 12 thumbnail" in "\n".join(rest)
    assert "Check the codes with the edition of the terminology" in "\n".join(rest)


def test_the_card_carries_every_caveat(folder: ModelFolder) -> None:
    recipe, card = load_recipe(folder.description.name), card_of(folder)

    for each in (*recipe.caveats, *recipe.limits):
        assert each in card


def test_card_description_and_metrics_are_of_the_same_weights(folder: ModelFolder) -> None:
    card, whole = card_of(folder), metrics_of(folder)["cross_validation"]["accuracy"]["estimate"]

    assert folder.weights_sha256 in card
    assert folder.description.device_uid in card
    assert f"{whole:.3f}" in card
    assert folder.description.metrics["cross_validated_accuracy"] == whole


def test_nothing_but_the_model_is_in_its_folder(folder: ModelFolder) -> None:
    """No picture of the data among it, such as the worst errors show."""
    names = {path.name for path in folder.path.iterdir()}

    assert names >= FILES
    assert names - FILES - FIGURES - {"LICENSE"} == set()
    assert folder.weights_path.stat().st_size < LARGEST_BYTES


def test_what_was_learned_from_non_commercial_pictures_says_so_and_nothing_else_was(
    folder: ModelFolder,
) -> None:
    described, terms = folder.description, folder.path / "LICENSE"

    if described.name != NON_COMMERCIAL:
        assert described.license == "Apache-2.0"
        assert "NC" not in described.training_data.license
        assert not terms.exists()
        return
    assert described.license == "CC BY-NC 4.0"
    assert "not for commercial use" in card_of(folder).splitlines()[0]
    assert "NonCommercial" in terms.read_text(encoding="utf-8")
    assert "HAM10000" in terms.read_text(encoding="utf-8")


def test_the_page_of_models_says_of_it_what_the_metrics_do(folder: ModelFolder) -> None:
    page = (CHECKOUT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in page if line.startswith(f"| `{folder.description.name}` |"))
    metrics = metrics_of(folder)
    figures, refusal = metrics["validation"], metrics["refusal"]

    for figure in (figures["accuracy"], figures["balanced_accuracy"]):
        assert "{estimate:.3f} ({lower:.3f} to {upper:.3f})".format(**figure) in row
    assert f"| {metrics['cross_validation']['expected_calibration_error']:.3f}" in row
    assert f"| {refusal['in_domain']['share']:.1%} |" in row
    assert "{refused} of {n};".format(**refusal["wrong_domain"]) in row
    assert "{refused} of {out_of_domain} |".format(**refusal["dicom"]) in row
