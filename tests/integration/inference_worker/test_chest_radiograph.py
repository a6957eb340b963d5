"""The model that is shipped: whole, honest, and ours in every kernel."""

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from inference_worker.model_folder import ModelFolder, load_model_folder
from inference_worker.predictor import Predictor
from message_contracts.applicability import InstanceAttributes
from model_training.architectures import BACKBONES
from model_training.networks import build_network, kernels_of, unmoved_kernels

pytestmark = pytest.mark.tensorflow
CHECKOUT = Path(__file__).parents[3]
FOLDER = CHECKOUT / "models" / "chest-radiograph"
DATA = Path(os.environ.get("COUNTERSIGN_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
BACKBONE = "mobilenet_v1_1.0_224_imagenet_float32_to_conv_dw_13.weights.h5"


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    return load_model_folder(FOLDER)


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "metrics.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def card() -> str:
    return (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_it_loads_and_reads_a_picture(folder: ModelFolder) -> None:
    shape = (2, folder.description.input.rows, folder.description.input.columns)
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)

    predictions = Predictor(folder).predict(noise)

    assert len(predictions) == 2
    assert all(np.isfinite(each.probabilities).all() for each in predictions)
    assert all(each.cam.max() <= 1 for each in predictions)


def test_it_reads_a_frontal_chest_radiograph_and_no_lateral_one(folder: ModelFolder) -> None:
    frontal = InstanceAttributes(
        modality="DX",
        body_part_examined=None,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        view_position=None,
    )
    lateral = frontal.model_copy(update={"view_position": "LL"})

    assert folder.description.applies_to.mismatches(frontal) == ()
    assert folder.description.applies_to.mismatches(lateral)


def test_it_beats_the_thumbnail_by_patient_grouped_cross_validation(
    metrics: dict[str, Any],
) -> None:
    for figure in ("accuracy", "balanced_accuracy"):
        assert metrics["comparison"]["all"][figure]["model_minus_thumbnail"]["lower"] > 0


def test_the_first_line_of_the_card_says_that_it_is_not_for_clinical_use(card: str) -> None:
    assert "Not for clinical use" in card.splitlines()[0]
    assert "confounded" in card.splitlines()[0]


@pytest.mark.parametrize(
    "said",
    [
        "Class and source are confounded",
        "96 % of the bacterial and 99 % of the viral",
        "0.83",
        "thumbnail alone gave 0.75",
        "the source could be told with 0.97",
        "overstates diagnostic skill",
        "(Normal/Bacterial/Viral) 0.82",
        "(COVID-19 against Normal) 0.95",
        "Adult viral (5 images of the full set) and adult bacterial (31)",
        "no clinical claim can be supported",
        "Kermany only",
        "Adults only",
        "difference to the 12 x 12 thumbnail",
        "difference to the linear head on frozen features",
        "Check the codes with the edition of the terminology",
    ],
)
def test_the_card_carries_every_caveat(card: str, said: str) -> None:
    assert said in card


def test_card_description_and_metrics_are_of_the_same_weights(
    folder: ModelFolder, metrics: dict[str, Any], card: str
) -> None:
    whole = metrics["cross_validation"]["accuracy"]["estimate"]

    assert folder.weights_sha256 in card
    assert folder.description.device_uid in card
    assert f"{whole:.3f}" in card
    assert folder.description.metrics["cross_validated_accuracy"] == whole


def test_the_card_says_what_it_refuses_as_the_metrics_do(
    folder: ModelFolder, metrics: dict[str, Any], card: str
) -> None:
    refusal = metrics["refusal"]

    assert refusal["in_domain"]["share"] <= 0.05
    assert refusal["wrong_domain"]["n"] >= 200
    assert refusal["wrong_domain"]["share"] >= 0.95
    assert refusal["dicom"]["share"] >= 0.95
    assert folder.description.domain is not None
    assert refusal["domain"]["sha256"] == folder.description.domain.sha256
    assert "Whether the pixels of a lateral view alone would be refused was not tested." in card


def test_nothing_but_the_model_is_in_its_folder() -> None:
    names = {path.name for path in FOLDER.iterdir()}

    assert names == {"model.yaml", "weights.keras", "domain.npz", "metrics.json", "MODEL_CARD.md"}


def test_training_has_moved_every_kernel(folder: ModelFolder) -> None:
    weights = DATA.parent / "weights" / BACKBONE
    if not weights.is_file():
        pytest.skip("the ImageNet weights that training starts from are not on this machine")
    side, classes = folder.description.input.rows, len(folder.description.classes)
    before = kernels_of(build_network(BACKBONES["mobilenet_v1"], side, classes, weights))

    shipped = keras.saving.load_model(folder.weights_path, compile=False)

    assert unmoved_kernels(shipped, before) == ()
    # Channels that are dead in the ImageNet weights have no gradient and stay; the first layers of
    # this backbone have a quarter of such.
    for path, kernel in kernels_of(shipped).items():
        assert np.mean(kernel != before[path]) > 0.7, path
