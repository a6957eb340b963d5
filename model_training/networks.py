"""The network that is trained: a convolutional base, average pooling, one dense layer."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from model_training.architectures import BACKBONES, build_backbone, from_config
from model_training.calibration import Calibration
from model_training.recipe import FineTuning

FloatArray = npt.NDArray[np.float64]


SCORES_LAYER = "scores"
CALIBRATION_LAYER = "temperature"
"""Its name from when it had no offsets yet: networks that are kept half-way are read by it."""
DROPOUT = 0.3
NORMALIZATION_MOMENTUM = 0.9
"""Statistics follow the last ten batches or so: radiographs differ from ImageNet, and a run is a
few hundred steps long."""


def build_network(how: FineTuning, class_count: int, weights: Path | None) -> Any:
    """Build the network ``[n, side, side, 3]`` in -1..1 to probabilities ``[n, class_count]``.

    All kernels learn, and batch normalization where the backbone has a real one. Raises as
    ``build_backbone``.
    """
    backbone = BACKBONES[how.backbone]
    base = build_backbone(backbone, how.side, weights)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = backbone.learns_normalization or weights is None
            layer.momentum = NORMALIZATION_MOMENTUM
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(base.outputs[0])
    dropped = keras.layers.Dropout(DROPOUT, name="dropout")(pooled)
    scores = keras.layers.Dense(class_count, name=SCORES_LAYER)(dropped)
    calibrated = keras.layers.Rescaling(1.0, name=CALIBRATION_LAYER)(scores)
    probabilities = keras.layers.Softmax(name="probabilities")(calibrated)
    return keras.Model(base.inputs[0], probabilities, name="countersign")


def pooled_features_of(network: Any) -> Any:
    """Return the part of the network that ends at the pooled features ``[n, channels]``."""
    return keras.Model(network.input, network.get_layer("pooled").output)


def scores_of(network: Any) -> Any:
    """Return the part of the network that ends at the scores before calibration and softmax."""
    return keras.Model(network.input, network.get_layer(SCORES_LAYER).output)


def with_calibration(network: Any, calibration: Calibration) -> Any:
    """Return the same network whose scores are calibrated before the softmax.

    The calibration is a layer of the network, so that whoever runs it needs to know of none. Which
    places a heat map shows for a class it leaves as they were: it scales their gradient alike.
    """
    config = network.get_config()
    for layer in config["layers"]:
        if layer["name"] == CALIBRATION_LAYER:
            layer["config"]["scale"] = calibration.slope
            layer["config"]["offset"] = calibration.offsets.tolist()
    return from_config(config, network.get_weights())


def kernels_of(network: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Return a copy of every convolution and dense kernel by its path."""
    return {
        weight.path: np.array(weight.numpy(), copy=True)
        for weight in network.weights
        if "kernel" in weight.path.rsplit("/", maxsplit=1)[-1]
    }


def unmoved_kernels(network: Any, before: dict[str, npt.NDArray[np.float32]]) -> tuple[str, ...]:
    """Return the paths of the kernels that are still exactly as they were ``before``."""
    after = kernels_of(network)
    return tuple(path for path, kernel in before.items() if np.array_equal(kernel, after[path]))
