"""The optimizer and its learning rate."""

import math
from typing import Any

import keras

from model_training.recipe import FineTuning

WARM_UP_SHARE = 10
"""The learning rate rises over the first tenth of all steps, from a twentieth of its peak."""
FIRST_RATE_SHARE = 20
MOMENTUM = 0.9


def optimizer_of(how: FineTuning) -> Any:
    """Return the optimizer at its peak rate; whoever trains sets ``learning_rate`` for each step.

    A schedule of Keras would be computed anew for every variable, in the graph: it is half of it.
    """
    if how.optimizer == "adamw":
        return keras.optimizers.AdamW(how.learning_rate, weight_decay=how.weight_decay)
    if how.optimizer == "adam":
        return keras.optimizers.Adam(how.learning_rate, weight_decay=how.weight_decay or None)
    return keras.optimizers.SGD(
        how.learning_rate,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=how.weight_decay or None,
    )


def learning_rate_at(how: FineTuning, step: int, step_count: int) -> float:
    """Return the rate of a step, from 0: a short rise to the peak, then what the recipe says."""
    peak, warm_up = how.learning_rate, step_count // WARM_UP_SHARE
    if step < warm_up:
        first = peak / FIRST_RATE_SHARE
        return first + (peak - first) * step / warm_up
    done = min((step - warm_up) / max(step_count - warm_up, 1), 1.0)
    if how.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    return peak * (1 - done) if how.schedule == "linear" else peak
