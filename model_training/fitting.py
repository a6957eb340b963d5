"""Fine-tuning of the whole network."""

import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from inference_worker.preprocessing import Picture
from model_training.augmentation import augment
from model_training.networks import SCORES_LAYER, pooled_features_of, scores_of
from model_training.recipe import FineTuning

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
PREDICTION_BATCH = 64


def class_weights(labels: IntArray, class_count: int) -> FloatArray:
    """Return one weight per class so that each class counts the same in the loss."""
    counts = np.bincount(labels, minlength=class_count)
    return np.asarray(len(labels) / (class_count * np.maximum(counts, 1)), dtype=np.float64)


def to_input(pictures: Picture) -> npt.NDArray[np.float32]:
    """Scale 8-bit gray ``[n, rows, columns]`` to -1..1 in three equal channels."""
    scaled = pictures.astype(np.float32) / 127.5 - 1.0
    return np.repeat(scaled[..., np.newaxis], 3, axis=-1)


def frozen_features(network: Any, pictures: Picture) -> FloatArray:
    """Return the pooled features ``[n, channels]`` of every picture."""
    return _in_batches(pooled_features_of(network), pictures)


def scores(network: Any, pictures: Picture) -> FloatArray:
    """Return the uncalibrated scores ``[n, classes]`` of every picture."""
    return _in_batches(scores_of(network), pictures)


def _in_batches(part: Any, pictures: Picture) -> FloatArray:
    signature = [tf.TensorSpec((None, *part.input_shape[1:]), tf.float32)]
    run = tf.function(lambda batch: part(batch, training=False), input_signature=signature)
    found = [
        run(to_input(pictures[start : start + PREDICTION_BATCH])).numpy()
        for start in range(0, len(pictures), PREDICTION_BATCH)
    ]
    return np.concatenate(found).astype(np.float64)


def fine_tune(
    network: Any,
    pictures: Picture,
    labels: IntArray,
    how: FineTuning,
    random: np.random.Generator,
) -> Iterator[str]:
    """Fine-tune ``network`` in place on ``[n, rows, columns]``; yields a line after each epoch.

    The dense layer starts at zero, so that at first it alone learns: the backbone's gradient grows
    with the head's kernel and does not wash its features out.
    """
    head = network.get_layer(SCORES_LAYER)
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    steps_per_epoch = int(np.ceil(len(pictures) / how.batch))
    step_count = how.epochs * steps_per_epoch
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=how.learning_rate / 20,
        decay_steps=step_count - step_count // 10,
        warmup_target=how.learning_rate,
        warmup_steps=step_count // 10,
    )
    step = _training_step(network, schedule, how)
    weights = class_weights(labels, network.output_shape[-1])
    for epoch in range(how.epochs):
        began_s = time.monotonic()
        order = random.permutation(len(pictures))
        losses = []
        for start in range(0, len(order), how.batch):
            chosen = order[start : start + how.batch]
            batch = to_input(augment(pictures[chosen], random))
            weight = weights[labels[chosen]].astype(np.float32)
            losses.append(float(step(batch, labels[chosen], weight)))
        took_s = time.monotonic() - began_s
        yield f"epoch {epoch + 1}/{how.epochs}: loss {np.mean(losses):.4f}, {took_s:.0f} s"


def _training_step(network: Any, schedule: Any, how: FineTuning) -> Any:
    learner = scores_of(network)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=how.weight_decay)
    optimizer.build(learner.trainable_variables)
    class_count = int(network.output_shape[-1])

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
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
