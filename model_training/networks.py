"""The network that is trained: a convolutional base, average pooling, one dense layer."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from model_training.architectures import BACKBONES, build_backbone, from_config
from model_training.recipe import FineTuning

FloatArray = npt.NDArray[np.float64]


SCORES_LAYER = "scores"
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
    calibrated = keras.layers.Rescaling(1.0, name="temperature")(scores)
    probabilities = keras.layers.Softmax(name="probabilities")(calibrated)
    return keras.Model(base.inputs[0], probabilities, name="countersign")


def pooled_features_of(network: Any) -> Any:
    """Return the part of the network that ends at the pooled features ``[n, channels]``."""
    return keras.Model(network.input, network.get_layer("pooled").output)


def scores_of(network: Any) -> Any:
    """Return the part of the network that ends at the scores before temperature and softmax."""
    return keras.Model(network.input, network.get_layer(SCORES_LAYER).output)


def with_temperature(network: Any, temperature: float) -> Any:
    """Return the same network with its scores divided by ``temperature`` before the softmax.

    Guo et al., On Calibration of Modern Neural Networks (2017): it changes no ranking of classes.
    """
    config = network.get_config()
    for layer in config["layers"]:
        if layer["name"] == "temperature":
            layer["config"]["scale"] = 1.0 / temperature
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
