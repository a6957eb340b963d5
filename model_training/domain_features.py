"""Features of pictures at layers of a network, as they are compared with a model's domain."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from inference_worker.labeled_pictures import LabeledPicture, read_manifest, read_picture_batch
from inference_worker.preprocessing import Picture
from message_contracts.model_description import NetworkInput

FloatArray = npt.NDArray[np.float64]
BATCH = 32
GRAY_BATCH_DIMENSIONS = 3


def features_at(
    network: Any, layers: Sequence[str], pictures: Sequence[LabeledPicture], takes: NetworkInput
) -> dict[str, FloatArray]:
    """Return ``[n, channels]`` of every layer: its feature map, averaged over the picture."""
    averages = [
        keras.layers.GlobalAveragePooling2D()(network.get_layer(layer).output) for layer in layers
    ]
    part = keras.Model(network.inputs[0], averages)
    shape = (takes.rows, takes.columns, takes.channels)
    signature = [tf.TensorSpec((None, *shape), tf.float32)]
    run = tf.function(lambda batch: part(batch, training=False), input_signature=signature)
    found: list[list[FloatArray]] = []
    for first in range(0, len(pictures), BATCH):
        batch = read_picture_batch(tuple(pictures[first : first + BATCH]), shape)
        outputs = run(_scaled(batch, takes))
        outputs = [outputs] if len(layers) == 1 and not isinstance(outputs, list) else outputs
        found.append([each.numpy().astype(np.float64) for each in outputs])
    return {
        layer: np.concatenate([outputs[place] for outputs in found])
        for place, layer in enumerate(layers)
    }


def some_pictures(folder: Path, split: str, most: int, seed: int) -> tuple[LabeledPicture, ...]:
    """Return at most so many pictures of a split, drawn at random; raises as ``read_manifest``."""
    rows = [row for row in read_manifest(folder) if row.split == split]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:most]
    return tuple(rows[place] for place in sorted(chosen))


def _scaled(batch: Picture, takes: NetworkInput) -> npt.NDArray[np.float32]:
    scaled = batch.astype(np.float32) * np.float32(takes.multiply) + np.float32(takes.add)
    if scaled.ndim == GRAY_BATCH_DIMENSIONS:
        scaled = np.repeat(scaled[..., np.newaxis], takes.channels, axis=-1)
    return scaled
