"""A model with a domain refuses pictures that are of another kind than those it learned from."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from inference_worker.domain import Reference, write_reference
from inference_worker.model_folder import (
    InvalidModelFolder,
    load_model_folder,
    sha256_of,
    write_description,
)
from inference_worker.predictor import Predictor
from message_contracts.domain_check import DomainCheck, DomainMethod
from model_training.domain_fit import Fitted, fit_class_means, fit_domain
from tests.tiny_model import SIDE, drawn_pictures, make_tiny_model

pytestmark = pytest.mark.tensorflow

LAYER = "features"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-chest")


@pytest.fixture(scope="module")
def refusing(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the tiny model the domain of its own pictures."""
    path = copied(tiny, tmp_path_factory.mktemp("refusing"))
    pictures, labels = drawn_pictures(200, seed=7)
    network = keras.saving.load_model(path / "weights.keras", compile=False)
    average = keras.layers.GlobalAveragePooling2D()(network.get_layer(LAYER).output)
    batch = pictures[..., np.newaxis].astype(np.float32) / 255
    features = keras.Model(network.inputs[0], average)(batch).numpy().astype(np.float64)
    fitted = fit_domain(DomainMethod.MAHALANOBIS, features, labels, np.arange(200) % 5)
    declare(path, fitted)
    return path


def copied(path: Path, folder: Path) -> Path:
    return shutil.copytree(path, folder / path.name)


def declare(path: Path, fitted: Fitted, layer: str = LAYER) -> None:
    write_reference(fitted.reference, path / "domain.npz")
    check = DomainCheck(
        method=DomainMethod.MAHALANOBIS,
        layer=layer,
        file="domain.npz",
        sha256=sha256_of(path / "domain.npz"),
        threshold=fitted.threshold,
    )
    described = load_model_folder(path).description
    write_description(described.model_copy(update={"domain": check}), path)


def a_reference(channels: int) -> Reference:
    random = np.random.default_rng(1)
    return fit_class_means(random.normal(size=(50, channels)), np.arange(50) % 2)


def test_pictures_of_its_kind_are_judged(refusing: Path) -> None:
    pictures, _ = drawn_pictures(64, seed=8)

    refused = [
        each.refusal is not None
        for each in Predictor(load_model_folder(refusing)).predict(pictures)
    ]

    assert np.mean(refused) < 0.1


def test_pictures_of_another_kind_are_refused_with_a_reason(refusing: Path) -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    board = np.where((row // 8 + column // 8) % 2, 255, 0).astype(np.uint8)

    (prediction,) = Predictor(load_model_folder(refusing)).predict(board[np.newaxis])

    assert prediction.refusal is not None
    assert "not of the kind that the model learned from" in prediction.refusal
    assert sum(prediction.probabilities) == pytest.approx(1)


def test_classifying_alone_refuses_the_same(refusing: Path) -> None:
    predictor = Predictor(load_model_folder(refusing))
    pictures, _ = drawn_pictures(6, seed=9)
    pictures[3] = 255 - pictures[3]

    probabilities, refusals = predictor.assess(pictures)

    predictions = predictor.predict(pictures)
    assert [each is None for each in refusals] == [each.refusal is None for each in predictions]
    np.testing.assert_allclose(
        probabilities, [each.probabilities for each in predictions], atol=1e-6
    )


def test_a_model_without_a_domain_refuses_nothing(tiny: Path) -> None:
    predictions = Predictor(load_model_folder(tiny)).predict(
        np.zeros((2, SIDE, SIDE), dtype=np.uint8)
    )

    assert [each.refusal for each in predictions] == [None, None]


def test_a_layer_that_the_network_has_not_is_named(tiny: Path, tmp_path: Path) -> None:
    path = copied(tiny, tmp_path)
    declare(path, Fitted(a_reference(8), 1.0), layer="nowhere")

    with pytest.raises(
        InvalidModelFolder, match=r"domain\.layer: the network has no layer nowhere"
    ):
        Predictor(load_model_folder(path))


def test_a_file_for_another_layer_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = copied(tiny, tmp_path)
    declare(path, Fitted(a_reference(channels=3), 1.0))

    with pytest.raises(InvalidModelFolder, match=r"domain\.layer: it has \d+ channels"):
        Predictor(load_model_folder(path))
