"""The network at work: probabilities and Grad-CAM in one compiled graph.

The only module of the worker that imports TensorFlow.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from inference_worker.domain import Domain, load_domain
from inference_worker.model_folder import InvalidModelFolder, ModelFolder
from inference_worker.prediction import NO_NUMBER, Prediction
from inference_worker.preprocessing import Picture
from inference_worker.receptive_fields import cell_grid_of

FEATURE_MAP_DIMENSIONS = 4
"""[n, rows, columns, channels]."""
RGB = 3


class Predictor:
    """A loaded model, traced and ready.

    The backbone runs once per batch. Grad-CAM (Selvaraju et al., ICCV 2017, §3) needs the gradient
    of the class score with respect to the last feature map only, so only the head above that map is
    differentiated: a pooling and a dense layer. The score is the one before the softmax, as the
    paper has it; after the softmax a certain class would have a vanishing gradient.

    The features by which a picture of another kind is known come out of the same graph.

    Raises
    ------
    InvalidModelFolder
        The weights cannot be loaded, or the network does not fit its description: other input,
        other number of classes, no such ``grad_cam_layer`` or ``domain.layer``, or no softmax at
        its end. Or the file of its domain cannot be used.
    """

    def __init__(self, folder: ModelFolder) -> None:
        _suit_gpu()
        self._description = folder.description
        self._domain = load_domain(folder)
        backbone, head = _cut(_load(folder), folder)
        self._grid = cell_grid_of(backbone)
        _check_domain(self._domain, int(backbone.output_shape[1][-1]), folder)
        channels = self._description.input.channels
        multiply, add = self._description.input.multiply, self._description.input.add

        def features_of(batch: Any) -> Any:
            pixels = tf.cast(batch, tf.float32) * multiply + add
            if channels == RGB and batch.shape.rank == FEATURE_MAP_DIMENSIONS - 1:
                pixels = tf.repeat(pixels[..., tf.newaxis], channels, axis=-1)
            elif batch.shape.rank == FEATURE_MAP_DIMENSIONS - 1:
                pixels = pixels[..., tf.newaxis]
            return backbone(pixels, training=False)

        @tf.function  # type: ignore[untyped-decorator]
        def classify(batch: Any) -> Any:
            features, compared = features_of(batch)
            return tf.nn.softmax(head(features, training=False)), compared

        @tf.function  # type: ignore[untyped-decorator]
        def explain(batch: Any) -> Any:
            return explained(batch, lambda scores: tf.reduce_max(scores, axis=-1))

        @tf.function  # type: ignore[untyped-decorator]
        def explain_class(batch: Any, place: Any) -> Any:
            return explained(batch, lambda scores: scores[:, place])

        def explained(batch: Any, score_of: Callable[[Any], Any]) -> Any:
            features, compared = features_of(batch)
            with tf.GradientTape() as tape:
                tape.watch(features)
                scores = head(features, training=False)
                score = score_of(scores)
            gradient = tape.gradient(score, features)
            weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
            cam = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))
            peak = tf.reduce_max(cam, axis=(1, 2), keepdims=True)
            return tf.nn.softmax(scores), tf.math.divide_no_nan(cam, peak), compared

        rows, columns = self._description.input.rows, self._description.input.columns
        shapes = [tf.TensorSpec((None, rows, columns), tf.uint8)]
        if channels == RGB:
            shapes.append(tf.TensorSpec((None, rows, columns, RGB), tf.uint8))
        by_rank = {len(shape.shape): shape for shape in shapes}
        self._classify = {r: classify.get_concrete_function(s) for r, s in by_rank.items()}
        self._explain = {r: explain.get_concrete_function(s) for r, s in by_rank.items()}
        # Asked for now and then by a person: traced when it is, once for batches of every size.
        self._explain_class = cache(
            lambda rank: explain_class.get_concrete_function(
                by_rank[rank], tf.TensorSpec((), tf.int32)
            )
        )
        for shape in shapes:
            self.predict(np.zeros((1, *shape.shape[1:]), dtype=np.uint8))

    def predict(self, batch: Picture) -> list[Prediction]:
        """Classify and explain ``[n, rows, columns]`` gray or ``[n, rows, columns, 3]`` RGB.

        Raises
        ------
        ValueError
            The batch has not the type or geometry of the model's input.
        """
        return self._predictions(self._explain[self._rank_of(batch)](tf.constant(batch)))

    def explain(self, batch: Picture, place: int) -> list[Prediction]:
        """Explain the class at a place of the network's output; takes and raises as ``predict``."""
        explain = self._explain_class(self._rank_of(batch))
        return self._predictions(explain(tf.constant(batch), tf.constant(place, tf.int32)))

    def _predictions(self, found: Any) -> list[Prediction]:
        probabilities, cams, compared = (each.numpy() for each in found)
        distances = self._distances(compared)
        return [
            Prediction(
                tuple(float(each) for each in row),
                cam,
                self._refusal(distance)
                if np.isfinite(row).all() and np.isfinite(cam).all()
                else NO_NUMBER,
                distance,
                self._grid,
            )
            for row, cam, distance in zip(_normalized(probabilities), cams, distances, strict=True)
        ]

    def classify(self, batch: Picture) -> npt.NDArray[np.float64]:
        """Return the probabilities ``[n, classes]`` alone; takes and raises as ``predict``."""
        return self.assess(batch)[0]

    def assess(self, batch: Picture) -> tuple[npt.NDArray[np.float64], tuple[str | None, ...]]:
        """Return the probabilities ``[n, classes]``, and of each picture why it is refused.

        Takes and raises as ``predict``.
        """
        found = self._classify[self._rank_of(batch)](tf.constant(batch))
        probabilities, compared = (each.numpy() for each in found)
        normalized, distances = _normalized(probabilities), self._distances(compared)
        return normalized, tuple(
            self._refusal(distance) if np.isfinite(row).all() else NO_NUMBER
            for row, distance in zip(normalized, distances, strict=True)
        )

    def _distances(self, compared: npt.NDArray[np.float32]) -> tuple[float | None, ...]:
        if self._domain is None:
            return (None,) * len(compared)
        return tuple(float(each) for each in self._domain.distances(compared))

    def _refusal(self, distance: float | None) -> str | None:
        if self._domain is None or distance is None:
            return None
        return self._domain.refusal(distance)

    def _rank_of(self, batch: Picture) -> int:
        expected = (self._description.input.rows, self._description.input.columns)
        fits = batch.ndim in self._explain and batch.shape[1:3] == expected
        if batch.dtype != np.uint8 or not fits or batch.shape[3:] not in {(), (RGB,)}:
            raise ValueError(
                f"8-bit [n, {expected[0]}, {expected[1]}] needed, "
                f"not {batch.dtype} {list(batch.shape)}"
            )
        return batch.ndim


def _normalized(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    exact = probabilities.astype(np.float64)
    return np.asarray(exact / exact.sum(axis=1, keepdims=True))


def _suit_gpu() -> None:
    """Where there is a GPU, take its memory as needed, and let it compute in half precision.

    Several models can then share a device. Which operations bear half precision TensorFlow decides
    for each, when it compiles the graph; weights stay as they are.
    """
    for device in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(device, enable=True)
        except RuntimeError:  # the device is in use already, with whatever was set then
            return
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision": True})


def _load(folder: ModelFolder) -> Any:
    try:
        return keras.saving.load_model(folder.weights_path, compile=False, safe_mode=True)
    except Exception as error:
        # Keras raises what it comes upon: a broken archive, an unknown layer, a wrong shape.
        raise InvalidModelFolder(
            f"{folder.path.name}: weights: {folder.weights_path.name} cannot be loaded as a "
            f"Keras model ({type(error).__name__})"
        ) from error


def _cut(network: Any, folder: ModelFolder) -> tuple[Any, Any]:
    """Cut the network at its Grad-CAM layer; the head ends at the scores before the softmax.

    The lower part also gives what is compared with the domain, ``[n, channels]``; of a model
    without one there are no channels.
    """
    description, name = folder.description, folder.path.name
    network = _as_graph(network)
    wanted = (description.input.rows, description.input.columns, description.input.channels)
    if tuple(network.input_shape[1:]) != wanted:
        raise InvalidModelFolder(
            f"{name}: input: the network takes {list(network.input_shape[1:])}, not {list(wanted)}"
        )
    if network.output_shape[1:] != (len(description.classes),):
        raise InvalidModelFolder(
            f"{name}: classes: the network has {network.output_shape[-1]} outputs, "
            f"not {len(description.classes)}"
        )
    layers = {layer.name: layer for layer in network.layers}
    layer = layers.get(description.grad_cam_layer)
    if layer is None or len(layer.output.shape) != FEATURE_MAP_DIMENSIONS:
        raise InvalidModelFolder(
            f"{name}: grad_cam_layer: the network has no layer {description.grad_cam_layer} "
            "with a feature map [rows, columns, channels]"
        )
    scores = _scores_before_softmax(network, name)
    try:
        head = keras.Model(layer.output, scores)
    except ValueError as error:
        raise InvalidModelFolder(
            f"{name}: grad_cam_layer: {description.grad_cam_layer} is bypassed on the way to the "
            "output; name the last layer with a feature map"
        ) from error
    return keras.Model(network.input, [layer.output, _compared(layers, layer, folder)]), head


def _compared(layers: dict[str, Any], cut: Any, folder: ModelFolder) -> Any:
    """Return the features that are compared with the model's domain, averaged over the picture."""
    domain = folder.description.domain
    if domain is None:
        return keras.layers.GlobalAveragePooling2D()(cut.output)[:, :0]
    layer = layers.get(domain.layer)
    if layer is None or len(layer.output.shape) != FEATURE_MAP_DIMENSIONS:
        raise InvalidModelFolder(
            f"{folder.path.name}: domain.layer: the network has no layer {domain.layer} with a "
            "feature map [rows, columns, channels]"
        )
    return keras.layers.GlobalAveragePooling2D()(layer.output)


def _check_domain(domain: Domain | None, compared_channels: int, folder: ModelFolder) -> None:
    if domain is not None and domain.reference.channels != compared_channels:
        raise InvalidModelFolder(
            f"{folder.path.name}: domain.layer: it has {compared_channels} channels, "
            f"domain.file {domain.reference.channels}"
        )


def _as_graph(network: Any) -> Any:
    """Return a Sequential model as a graph whose layers have one input and one output each."""
    if not isinstance(network, keras.Sequential):
        return network
    layers = [keras.layers.deserialize(keras.layers.serialize(each)) for each in network.layers]
    inputs = keras.Input(network.input_shape[1:])
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    graph = keras.Model(inputs, outputs)
    graph.set_weights(network.get_weights())
    return graph


def _scores_before_softmax(network: Any, name: str) -> Any:
    last = network.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return last.input
    if getattr(last, "activation", None) is keras.activations.softmax:
        if isinstance(last, keras.layers.Activation):
            return last.input
        last.activation = keras.activations.linear
        return last(last.input)
    raise InvalidModelFolder(f"{name}: weights: the network must end with a softmax")
