"""The optimizer and its learning rate."""

from typing import Any

import keras

from model_training.recipe import FineTuning

WARM_UP_SHARE = 10
"""The learning rate rises over the first tenth of all steps, from a twentieth of its peak."""
FIRST_RATE_SHARE = 20
MOMENTUM = 0.9


def optimizer_of(how: FineTuning, step_count: int) -> Any:
    """Return the optimizer for a training of so many steps."""
    rate = learning_rate_of(how, step_count)
    if how.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=how.weight_decay)
    if how.optimizer == "adam":
        return keras.optimizers.Adam(rate, weight_decay=how.weight_decay or None)
    return keras.optimizers.SGD(
        rate, momentum=MOMENTUM, nesterov=True, weight_decay=how.weight_decay or None
    )


def learning_rate_of(how: FineTuning, step_count: int) -> Any:
    """Return the schedule: a short rise to the peak, then what the recipe says."""
    warm_up = step_count // WARM_UP_SHARE
    rest = max(step_count - warm_up, 1)
    first = how.learning_rate / FIRST_RATE_SHARE
    if how.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=first,
            decay_steps=rest,
            warmup_target=how.learning_rate,
            warmup_steps=warm_up,
        )
    last = 0.0 if how.schedule == "linear" else how.learning_rate
    return _WarmUpAndLine(first, how.learning_rate, last, warm_up, rest)


class _WarmUpAndLine(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A straight line up, and another to the last rate."""

    def __init__(self, first: float, peak: float, last: float, warm_up: int, rest: int) -> None:
        self._rates = (first, peak, last)
        self._warm_up, self._rest = warm_up, rest

    def __call__(self, step: Any) -> Any:
        first, peak, last = self._rates
        at = keras.ops.cast(step, "float32")
        rising = first + (peak - first) * at / max(self._warm_up, 1)
        done = keras.ops.clip((at - self._warm_up) / self._rest, 0.0, 1.0)
        return keras.ops.where(at < self._warm_up, rising, peak + (last - peak) * done)

    def get_config(self) -> dict[str, Any]:
        return {"rates": self._rates, "warm_up": self._warm_up, "rest": self._rest}
