"""The architectures as they are built, and what is done to them."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_training.architectures import BACKBONES, UnfitBackboneWeights, build_backbone
from model_training.calibration import Calibration
from model_training.networks import (
    build_network,
    kernels_of,
    scores_of,
    unmoved_kernels,
    with_calibration,
)
from model_training.recipe import Architecture, FineTuning

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(900)]
SIDE = 224
CELL = 3
"""The middle one of seven: with nothing out of place it sees the middle of the picture."""


def how(backbone: Architecture) -> FineTuning:
    common = {"epochs": 1, "batch": 8, "learning_rate": 1e-3, "label_smoothing": 0}
    return FineTuning(backbone=backbone, side=64, weight_decay=0, **common)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_feature_cell_is_centered_on_what_it_sees(name: str) -> None:
    """Else a heat map would be drawn half a cell, 16 pixels, off."""
    keras.utils.set_random_seed(1)
    base = build_backbone(BACKBONES[name], SIDE, None)
    random = np.random.default_rng(0)
    picture = tf.constant(random.uniform(-1, 1, (1, SIDE, SIDE, 3)).astype(np.float32))

    with tf.GradientTape() as tape:
        tape.watch(picture)
        features = base(picture, training=False)
        mix = random.normal(size=features.shape[-1]).astype(np.float32)
        value = tf.reduce_sum(features[0, CELL, CELL] * mix)
    seen = np.square(tape.gradient(value, picture).numpy()[0]).sum(axis=-1)

    assert base.layers[-1].name == BACKBONES[name].last_layer
    assert features.shape[1:3] == (7, 7)
    for axis in (0, 1):
        profile = seen.sum(axis=1 - axis)
        center = float(profile @ np.arange(SIDE) / profile.sum())
        assert center == pytest.approx((SIDE - 1) / 2, abs=5)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.weights.h5"
    inputs = keras.Input((32, 32, 3))
    keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs)).save_weights(file)

    with pytest.raises(UnfitBackboneWeights, match=r"other\.weights\.h5: no weights of MobileNet"):
        build_backbone(BACKBONES["mobilenet_v1"], 32, file)


def test_weights_come_with_the_backbone_and_nothing_has_moved_yet(
    tmp_path: Path,
) -> None:
    first = build_backbone(BACKBONES["mobilenet_v1"], 64, None)
    file = tmp_path / "first.weights.h5"
    first.save_weights(file)

    network = build_network(how("mobilenet_v1"), 4, file)

    before = kernels_of(network)
    assert len(before) == 27
    assert set(unmoved_kernels(network, before)) == set(before)
    for ours, theirs in zip(first.get_weights(), network.get_weights(), strict=False):
        np.testing.assert_array_equal(ours, theirs)


def test_a_calibration_changes_probabilities_as_it_says() -> None:
    network = build_network(how("mobilenet_v2"), 4, None)
    pictures = np.random.default_rng(1).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    calibration = Calibration(0.5, np.array([0.75, -0.5, 0.25, -0.5]))

    scores = scores_of(network)(pictures).numpy().astype(np.float64)
    calibrated = with_calibration(network, calibration)

    assert np.ptp(scores) > 0
    np.testing.assert_allclose(
        calibrated(pictures).numpy(), calibration.probabilities(scores), atol=1e-5
    )
    np.testing.assert_allclose(scores_of(calibrated)(pictures).numpy(), scores, atol=1e-5)


def test_a_calibrated_network_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    network = build_network(how("mobilenet_v2"), 3, None)
    calibrated = with_calibration(network, Calibration(1.5, np.array([2.0, -1.0, -1.0])))
    pictures = np.zeros((1, 64, 64, 3), np.float32)

    calibrated.save(tmp_path / "weights.keras")
    read = keras.saving.load_model(tmp_path / "weights.keras", compile=False)

    np.testing.assert_array_equal(read(pictures).numpy(), calibrated(pictures).numpy())
