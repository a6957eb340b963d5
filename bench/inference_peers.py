"""Beside whom a worker is measured: the bare network, ONNX Runtime, and the naive way."""

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from inference_worker.model_folder import ModelFolder

ONNX_PACKAGES = Path(__file__).parent.parent / ".bench"
"""Where `make bench-inference` installs ONNX Runtime and the converter: they are nobody's need."""

Batch = npt.NDArray[np.uint8]
Peer = Callable[[Batch], object]
"""Takes ``[n, rows, columns]`` gray."""


def peers(folder: ModelFolder, batch: int) -> dict[str, Peer]:
    """Return whoever is here, ready and warm."""
    network: Any = keras.saving.load_model(folder.weights_path, compile=False)
    found: dict[str, Peer] = {
        "bare_forward": _bare(network, folder, batch),
        "naive": _naive(network, folder),
    }
    if not absent():
        found["onnx_runtime"] = _onnx_runtime(network, folder)
    return found


def absent() -> list[str]:
    """Return who is not installed."""
    if ONNX_PACKAGES.is_dir() and str(ONNX_PACKAGES) not in sys.path:
        sys.path.append(str(ONNX_PACKAGES))
    names = ("onnxruntime", "onnx", "tf2onnx")
    return [name for name in names if importlib.util.find_spec(name) is None]


def gpu() -> str | None:
    """Return which GPU TensorFlow sees."""
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return None
    return str(tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU"))


def _values(batch: Batch, folder: ModelFolder) -> npt.NDArray[np.float32]:
    """Return what the network takes."""
    wanted = folder.description.input
    values = batch.astype(np.float32) * np.float32(wanted.multiply) + np.float32(wanted.add)
    return np.repeat(values[..., np.newaxis], wanted.channels, axis=-1)


def _bare(network: Any, folder: ModelFolder, batch: int) -> Peer:
    """Return the forward pass, compiled for this batch size, on values that are there already."""
    compiled = tf.function(lambda values: network(values, training=False))
    wanted = folder.description.input
    shape = (batch, wanted.rows, wanted.columns, wanted.channels)
    ready = compiled.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    values = tf.constant(_values(np.full(shape[:3], 99, np.uint8), folder))
    ready(values)

    def forward(pictures: Batch) -> object:
        given = values if len(pictures) == batch else values[: len(pictures)]
        return (ready if len(pictures) == batch else compiled)(given).numpy()

    return forward


def _onnx_runtime(network: Any, folder: ModelFolder) -> Peer:
    import onnxruntime  # noqa: PLC0415 - where it is installed

    wanted = folder.description.input
    # Keras exports what has been called.
    network(np.zeros((1, wanted.rows, wanted.columns, wanted.channels), np.float32))
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        path = Path(temporary) / "model.onnx"
        network.export(str(path), format="onnx", verbose=False)
        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def forward(pictures: Batch) -> object:
        return session.run(None, {name: _values(pictures, folder)})

    return forward


def _naive(network: Any, folder: ModelFolder) -> Peer:
    """As a notebook does it: one image after the other, ``predict``, then an eager tape."""
    layer = network.get_layer(folder.description.grad_cam_layer)
    split = keras.Model(network.inputs, [layer.output, network.output])

    def forward(pictures: Batch) -> object:
        maps = []
        for picture in pictures:
            values = _values(picture[np.newaxis], folder)
            top = int(np.argmax(network.predict(values, verbose=0)[0]))
            with tf.GradientTape() as tape:
                features, probabilities = split(values, training=False)
                score = probabilities[:, top]
            gradient = tape.gradient(score, features)
            weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
            maps.append(tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)).numpy())
        return maps

    return forward
