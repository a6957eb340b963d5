"""The network that is trained: a MobileNet backbone, average pooling, one dense layer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Backbone:
    """A convolutional base of Keras, cut at the layer whose feature map Grad-CAM explains."""

    name: str
    last_layer: str
    last_padding_layer: str
    """The zero padding before the last layer with stride 2; see ``build_network``."""
    learns_normalization: bool
    """Whether the weights come with batch normalization that can go on learning; in the
    de-quantized MobileNetV2 it has been folded into the kernels and only an identity is left."""


BACKBONES = {
    "mobilenet_v1": Backbone(
        "mobilenet_v1", "conv_dw_13_relu", "conv_pad_12", learns_normalization=True
    ),
    "mobilenet_v2": Backbone(
        "mobilenet_v2", "out_relu", "block_13_pad", learns_normalization=False
    ),
}
SCORES_LAYER = "scores"
DROPOUT = 0.3
NORMALIZATION_MOMENTUM = 0.9
"""Statistics follow the last ten batches or so: radiographs differ from ImageNet, and a run is a
few hundred steps long."""


def build_network(backbone: Backbone, side: int, class_count: int, weights: Path) -> Any:
    """Build the network ``[n, side, side, 3]`` in -1..1 to probabilities ``[n, class_count]``.

    Keras pads every layer with stride 2 below and to the right only. Over five such layers the
    center of what a feature cell sees moves half a cell (about 16 pixels) down and right of the
    place where a heat map would draw it. Padding the last of them above and to the left instead
    cancels that to within one pixel: 1 + 2 + 4 + 8 - 16.

    All kernels learn, and batch normalization where the backbone has a real one.
    """
    inputs = keras.Input((side, side, 3), name="picture")
    if backbone.name == "mobilenet_v1":
        base = keras.applications.MobileNet(input_tensor=inputs, include_top=False, weights=None)
        base = keras.Model(inputs, base.get_layer(backbone.last_layer).output)
        base.load_weights(str(weights))
    else:
        base = keras.applications.MobileNetV2(
            input_tensor=inputs, include_top=False, weights=str(weights)
        )
    learned = base.get_weights()
    base.get_layer(backbone.last_padding_layer).padding = ((1, 0), (1, 0))
    base = keras.Model.from_config(base.get_config())
    base.set_weights(learned)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = backbone.learns_normalization
            layer.momentum = NORMALIZATION_MOMENTUM
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(base.output)
    dropped = keras.layers.Dropout(DROPOUT, name="dropout")(pooled)
    scores = keras.layers.Dense(class_count, name=SCORES_LAYER)(dropped)
    calibrated = keras.layers.Rescaling(1.0, name="temperature")(scores)
    probabilities = keras.layers.Softmax(name="probabilities")(calibrated)
    return keras.Model(base.input, probabilities, name="countersign")


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
    calibrated = keras.Model.from_config(config)
    calibrated.set_weights(network.get_weights())
    return calibrated


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
