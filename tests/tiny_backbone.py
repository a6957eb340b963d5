"""A convolutional base that trains in a second, to stand where a real one does."""

from pathlib import Path
from typing import Any

import keras

from model_training.architectures import Backbone

CHANNELS = 12


def _build(inputs: Any, weights: Path | None) -> Any:
    features = keras.layers.Conv2D(8, 5, strides=4, padding="same", name="first")(inputs)
    features = keras.layers.BatchNormalization(name="normalized")(features)
    features = keras.layers.Activation("relu", name="relu")(features)
    features = keras.layers.SpatialDropout2D(0.1, name="dropped")(features)
    features = keras.layers.Conv2D(
        CHANNELS, 3, strides=2, padding="same", activation="relu", name="features"
    )(features)
    base = keras.Model(inputs, features)
    if weights is not None:
        base.load_weights(str(weights))
    return base


TINY = Backbone("mobilenet_v2", "A tiny base", "features", _build)


def save_tiny_weights(file: Path, side: int) -> Path:
    """Write random weights for it, as a file of backbone weights, and return the file."""
    _build(keras.Input((side, side, 3), name="picture"), None).save_weights(file)
    return file
