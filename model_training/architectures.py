"""The convolutional bases that can be trained, each ready for a heat map that is in its place.

All take ``[n, side, side, 3]`` in -1..1; what a base wants instead is its first layer's business.

A feature map's cell ought to be centered on what it sees: cell ``i`` of stride 32 on pixel
``32 i + 15.5``, for that is where the heat map draws it. It is not so in the bases as they come.
Keras pads a layer with stride 2 below and to the right only (MobileNet, EfficientNet), which adds
up to half a cell, 15.5 pixels, down and right; ResNet pads evenly, which over even sizes comes out
half a cell up and left. So the last stride-2 layer of these is moved by one of its own pixels, 16
of the picture's. What is left, in pixels of the picture, down and right: MobileNet and EfficientNet
-0.5, ResNet +0.5, DenseNet (nothing moved; its pooling layers are even) -1.5. A test measures it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from service_runtime.errors import PermanentError

IMAGENET_MEAN = np.array((0.485, 0.456, 0.406))
IMAGENET_DEVIATION = np.array((0.229, 0.224, 0.225))
"""Of red, green and blue in 0..1; DenseNet's weights were learned so."""
SQUEEZE_RATIO = 16
OPEN_GATE = 2.0
"""The bias of a new gate: it begins nearly open (0.88), so that learned features pass it."""


class UnfitBackboneWeights(PermanentError):
    """The file of backbone weights is not one of the chosen architecture."""


@dataclass(frozen=True)
class Backbone:
    """A convolutional base of Keras, cut at the layer whose feature map Grad-CAM explains."""

    name: str
    title: str
    last_layer: str
    build: Callable[[Any, Path | None], Any]
    """Makes the base over an input; without weights its kernels are random."""
    learns_normalization: bool = True
    """Whether the weights come with batch normalization that can go on learning; in the
    de-quantized MobileNetV2 it has been folded into the kernels and only an identity is left."""


def _mobilenet_v1(inputs: Any, weights: Path | None) -> Any:
    """Howard et al. 2017, up to its last depthwise block: the published weights end there."""
    base = keras.applications.MobileNet(input_tensor=inputs, include_top=False, weights=None)
    base = keras.Model(inputs, base.get_layer("conv_dw_13_relu").output)
    if weights is not None:
        base.load_weights(str(weights))
    return _padded(base, "conv_pad_12", (1, 0))


def _mobilenet_v2(inputs: Any, weights: Path | None) -> Any:
    """Sandler et al. 2018."""
    base = keras.applications.MobileNetV2(
        input_tensor=inputs, include_top=False, weights=_path(weights)
    )
    return _padded(base, "block_13_pad", (1, 0))


def _resnet50v2_se(inputs: Any, weights: Path | None) -> Any:
    """He et al. 2016 with squeeze-and-excitation in every residual branch (Hu et al. 2018)."""
    base = keras.applications.ResNet50V2(
        input_tensor=inputs, include_top=False, weights=_path(weights)
    )
    last_shortcut = [
        layer.name
        for layer in base.layers
        if isinstance(layer, keras.layers.MaxPooling2D) and tuple(layer.pool_size) == (1, 1)
    ][-1]

    def call(layer: Any, *arguments: Any, **named: Any) -> Any:
        if layer.name == last_shortcut:
            # Moved as the branch beside it is.
            moved = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{layer.name}_moved")
            return layer(moved(arguments[0]), *arguments[1:], **named)
        output = layer(*arguments, **named)
        branch_ends = layer.name.startswith("conv") and layer.name.endswith("_3_conv")
        return _squeezed_and_excited(output, layer.name) if branch_ends else output

    learned = {layer.name: layer.get_weights() for layer in base.layers}
    base = _padded(base, "conv4_block6_2_pad", (0, 2))
    base = keras.models.clone_model(base, call_function=call)
    for layer in base.layers:
        if layer.name in learned:
            layer.set_weights(learned[layer.name])
    return base


def _squeezed_and_excited(features: Any, name: str) -> Any:
    channels = features.shape[-1]
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(features)
    gate = keras.layers.Dense(channels // SQUEEZE_RATIO, activation="relu", name=f"{name}_reduce")(
        gate
    )
    gate = keras.layers.Dense(
        channels,
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(OPEN_GATE),
        name=f"{name}_gate",
    )(gate)
    return keras.layers.Multiply(name=f"{name}_excited")([features, gate])


def _densenet169(inputs: Any, weights: Path | None) -> Any:
    """Huang et al. 2017."""
    wanted = keras.layers.Rescaling(
        (0.5 / IMAGENET_DEVIATION).tolist(),
        ((0.5 - IMAGENET_MEAN) / IMAGENET_DEVIATION).tolist(),
        name="imagenet_scale",
    )
    return keras.applications.DenseNet169(
        input_tensor=wanted(inputs), include_top=False, weights=_path(weights)
    )


def _efficientnet_b3(inputs: Any, weights: Path | None) -> Any:
    """Tan and Le 2019; its own first layers take 0..255."""
    wanted = keras.layers.Rescaling(127.5, 127.5, name="eight_bits")
    base = keras.applications.EfficientNetB3(
        input_tensor=wanted(inputs), include_top=False, weights=_path(weights)
    )
    return _padded(base, "block6a_dwconv_pad", (2, 1))


BACKBONES = {
    each.name: each
    for each in (
        Backbone(
            "mobilenet_v2", "MobileNetV2", "out_relu", _mobilenet_v2, learns_normalization=False
        ),
        Backbone("mobilenet_v1", "MobileNet v1", "conv_dw_13_relu", _mobilenet_v1),
        Backbone(
            "resnet50v2_se",
            "ResNet50V2 with squeeze-and-excitation blocks",
            "post_relu",
            _resnet50v2_se,
        ),
        Backbone("densenet169", "DenseNet169", "relu", _densenet169),
        Backbone("efficientnet_b3", "EfficientNetB3", "top_activation", _efficientnet_b3),
    )
}


def build_backbone(backbone: Backbone, side: int, weights: Path | None) -> Any:
    """Build a base over ``[n, side, side, 3]`` in -1..1.

    Raises
    ------
    UnfitBackboneWeights
        The file cannot be read, or its shapes are not those of the architecture without its top.
    """
    inputs = keras.Input((side, side, 3), name="picture")
    try:
        return backbone.build(inputs, weights)
    except Exception as error:
        if weights is None:
            raise
        # Keras raises what it comes upon: no such file, no HDF5, other layers, other shapes.
        raise UnfitBackboneWeights(
            f"{weights.name}: no weights of {backbone.title} without its top"
            f" ({type(error).__name__}); name the architecture that they are of"
        ) from error


def from_config(config: dict[str, Any], weights: list[Any]) -> Any:
    """Return a network of this configuration and these weights."""
    network = keras.Model.from_config(config)
    network.set_weights(weights)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # its constants follow weights that are loaded, not set
    return network


def _padded(base: Any, name: str, padding: tuple[int, int]) -> Any:
    """Return the base with another padding, above and below as left and right, of one layer."""
    base.get_layer(name).padding = (padding, padding)
    return from_config(base.get_config(), base.get_weights())


def _path(weights: Path | None) -> str | None:
    return None if weights is None else str(weights)
