"""Fine-tuning of the whole network, which may be stopped at any moment and goes on from there."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from inference_worker.preprocessing import Picture
from model_training.augmentation import augment
from model_training.checkpoint import Arrays, Checkpoint, Epoch, Progress
from model_training.data_set import DataSet
from model_training.linear_head import softmax
from model_training.networks import SCORES_LAYER, pooled_features_of, scores_of
from model_training.optimizing import learning_rate_at, optimizer_of
from model_training.progress import Reporter
from model_training.recipe import FineTuning

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
PREDICTION_BATCH = 64
GRAY_BATCH_DIMENSIONS = 3
CHECKPOINT_EVERY_S = 60.0
"""And after each epoch. It changes nothing in the result, only how much is done again."""


STOPS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Somebody asked for an end; where the training stands has been kept."""


@dataclass(frozen=True)
class Fitting:
    """One network in training, and what stays the same throughout."""

    network: Any
    learned: DataSet
    validation: DataSet | None
    how: FineTuning
    seed: int
    name: str
    reporter: Reporter
    checkpoint: Checkpoint
    checkpoint_every_s: float = CHECKPOINT_EVERY_S


def class_weights(labels: IntArray, class_count: int, balance: float = 1.0) -> FloatArray:
    """Return one weight per class; at a ``balance`` of 1 each class counts the same in the loss.

    At 0 each picture does; between them rare classes weigh more, but not fully. The mean over the
    pictures is 1.
    """
    counts = np.bincount(labels, minlength=class_count)
    raw = (len(labels) / (class_count * np.maximum(counts, 1.0))) ** balance
    return np.asarray(raw * len(labels) / max(float(raw @ counts), 1e-12), dtype=np.float64)


def to_input(pictures: Picture) -> npt.NDArray[np.float32]:
    """Scale 8-bit gray or RGB to -1..1 in three channels, for gray three equal ones."""
    scaled = pictures.astype(np.float32) / 127.5 - 1.0
    if scaled.ndim == GRAY_BATCH_DIMENSIONS:
        return np.repeat(scaled[..., np.newaxis], 3, axis=-1)
    return scaled


def frozen_features(network: Any, pictures: Picture) -> FloatArray:
    """Return the pooled features ``[n, channels]`` of every picture."""
    return _in_batches(pooled_features_of(network), pictures)


def scores(network: Any, pictures: Picture) -> FloatArray:
    """Return the uncalibrated scores ``[n, classes]`` of every picture."""
    return _in_batches(scores_of(network), pictures)


def _in_batches(part: Any, pictures: Picture) -> FloatArray:
    run = _compiled(part)
    found = [
        run(to_input(pictures[start : start + PREDICTION_BATCH])).numpy()
        for start in range(0, len(pictures), PREDICTION_BATCH)
    ]
    return np.concatenate(found).astype(np.float64)


def _compiled(part: Any) -> Any:
    signature = [tf.TensorSpec((None, *part.input_shape[1:]), tf.float32)]
    return tf.function(lambda batch: part(batch, training=False), input_signature=signature)


def fine_tune(fitting: Fitting) -> list[Epoch]:
    """Fine-tune the network in place and return what every epoch came to.

    The dense layer starts at zero, so that at first it alone learns: the backbone's gradient grows
    with the head's kernel and does not wash its features out. With ``patience`` the network ends as
    the version with the lowest validation loss.

    Raises
    ------
    Stopped
        By SIGINT or SIGTERM. The same call goes on where this one stopped, with the same result.
    """
    training = _Training(fitting)
    with _stop_asked() as stop_asked:
        while not training.is_over():
            training.run_epoch(stop_asked)
    training.take_best()
    return training.progress.history


class _Training:
    """A training under way: what changes from step to step."""

    def __init__(self, fitting: Fitting) -> None:
        network, how, labels = fitting.network, fitting.how, fitting.learned.labels
        head = network.get_layer(SCORES_LAYER)
        head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
        self._fitting = fitting
        self._steps = int(np.ceil(len(labels) / how.batch))
        self._class_weights = class_weights(labels, network.output_shape[-1], how.class_balance)
        self._optimizer = optimizer_of(how)
        self._step = _training_step(network, self._optimizer, how)
        self._validated = _compiled(scores_of(network))
        self._variables = [*network.variables, *self._optimizer.variables]
        self._best: Arrays = []
        self.progress = Progress()
        self._restore()

    def is_over(self) -> bool:
        """Tell whether all epochs are done, or the last ones were no better."""
        how = self._fitting.how
        tired = how.patience is not None and self.progress.epochs_since_best >= how.patience
        return tired or self.progress.epoch >= how.epochs

    def take_best(self) -> None:
        """Make the network the best version, if versions were compared."""
        if self._best:
            self._fitting.network.set_weights(self._best)

    def run_epoch(self, stop_asked: Callable[[], bool]) -> None:
        """Run what is left of the epoch under way; raises ``Stopped``."""
        fitting, progress = self._fitting, self.progress
        began_s = saved_s = time.monotonic()
        order = self._order()
        title = f"{fitting.name}: epoch {progress.epoch + 1}/{fitting.how.epochs}"
        with fitting.reporter.bar(title, self._steps, progress.step) as advance:
            while progress.step < self._steps:
                progress.losses.append(self._take_step(order))
                progress.step += 1
                advance(f"loss {progress.losses[-1]:.3f}")
                now_s = time.monotonic()
                if stop_asked() or now_s - saved_s >= fitting.checkpoint_every_s:
                    self._save()
                    saved_s = now_s
                if stop_asked():
                    raise Stopped
        self._finish_epoch(title, time.monotonic() - began_s)

    def _finish_epoch(self, title: str, took_s: float) -> None:
        progress = self.progress
        loss, found = float(np.mean(progress.losses)), self._validate()
        progress.history.append(Epoch(progress.epoch + 1, loss, *found))
        progress.epoch, progress.step, progress.losses = progress.epoch + 1, 0, []
        patient = self._fitting.how.patience is not None
        if patient and progress.best is progress.history[-1]:
            self._best = self._fitting.network.get_weights()
        self._save()
        validated = f", validation {found[0]:.4f}, accuracy {found[1]:.3f}" if found else ""
        self._fitting.reporter.line(f"{title}: loss {loss:.4f}{validated}, {took_s:.0f} s")

    def _validate(self) -> tuple[float, float] | tuple[()]:
        """Return the loss, in which classes weigh as in training, and the accuracy."""
        other = self._fitting.validation
        if other is None:
            return ()
        batches = range(0, len(other.rows), PREDICTION_BATCH)
        found = np.concatenate(
            [
                self._validated(to_input(other.pictures[start : start + PREDICTION_BATCH])).numpy()
                for start in batches
            ]
        ).astype(np.float64)
        right = softmax(found)[np.arange(len(found)), other.labels]
        weight = self._class_weights[other.labels]
        loss = float(np.average(-np.log(right + 1e-12), weights=weight))
        return loss, float(np.mean(found.argmax(axis=1) == other.labels))

    def _order(self) -> IntArray:
        """Return the rows of the epoch; the same epoch always has the same."""
        fitting = self._fitting
        random = np.random.default_rng((fitting.seed, self.progress.epoch))
        count = len(fitting.learned.rows)
        if fitting.how.balance_by == "loss":
            return random.permutation(count)
        chance = self._class_weights[fitting.learned.labels]
        return random.choice(count, count, p=chance / chance.sum())

    def _take_step(self, order: IntArray) -> float:
        fitting, progress = self._fitting, self.progress
        random = np.random.default_rng((fitting.seed, progress.epoch, progress.step))
        start = progress.step * fitting.how.batch
        chosen = order[start : start + fitting.how.batch]
        pictures = augment(fitting.learned.pictures[chosen], random, fitting.how.augmentation)
        labels = fitting.learned.labels[chosen]
        weighed = fitting.how.balance_by == "loss"
        weight = self._class_weights[labels] if weighed else np.ones(len(labels))
        done = progress.epoch * self._steps + progress.step
        self._optimizer.learning_rate = learning_rate_at(
            fitting.how, done, fitting.how.epochs * self._steps
        )
        return float(self._step(to_input(pictures), labels, weight.astype(np.float32)))

    def _save(self) -> None:
        values = [variable.numpy() for variable in self._variables]
        self._fitting.checkpoint.save(self.progress, values, self._best)

    def _restore(self) -> None:
        saved = self._fitting.checkpoint.read()
        if saved is None or len(saved[1]) != len(self._variables):
            return
        self.progress, values, self._best = saved
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        self._fitting.reporter.line(
            f"{self._fitting.name}: goes on at epoch {self.progress.epoch + 1},"
            f" step {self.progress.step + 1}"
        )


def _training_step(network: Any, optimizer: Any, how: FineTuning) -> Any:
    learner = scores_of(network)
    optimizer.build(learner.trainable_variables)
    class_count = int(network.output_shape[-1])
    signature = [
        tf.TensorSpec((None, *network.input_shape[1:]), tf.float32),
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((None,), tf.float32),
    ]

    # Traced once; else the last batch of an epoch, which is smaller, would have it traced again.
    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def step(batch: Any, labels: Any, weight: Any) -> Any:
        target = tf.one_hot(labels, class_count)
        target = target * (1 - how.label_smoothing) + how.label_smoothing / class_count
        with tf.GradientTape() as tape:
            each = tf.nn.softmax_cross_entropy_with_logits(target, learner(batch, training=True))
            loss = tf.reduce_mean(each * weight)
        gradients = tape.gradient(loss, learner.trainable_variables)
        optimizer.apply_gradients(zip(gradients, learner.trainable_variables, strict=True))
        return loss

    return step


@contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Answer whether SIGINT or SIGTERM has come; the step under way is finished first."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread is told of signals
        return
    before = {each: signal.signal(each, lambda number, _: asked.append(number)) for each in STOPS}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
