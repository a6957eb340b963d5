"""From the probabilities of many pictures to those of the study, and what they rest on. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from message_contracts.model_description import ModelDescription
from message_contracts.study_selection import Aggregate

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Aggregated:
    """What the pictures say together."""

    probabilities: tuple[float, ...]
    """In the order of the model's classes."""
    rests_on: tuple[int, ...]
    """The pictures whose mean that is, counted from 0; those farthest from normal first, unless it
    is the mean over all."""


def aggregate(pictures: Sequence[Sequence[float]], model: ModelDescription) -> Aggregated:
    """Bring the probabilities ``[pictures, classes]`` together, as ``model.reads`` declares.

    A mean of some pictures' probabilities is one distribution again; the greatest value of each
    class by itself would not be. How far from normal a picture is, is 1 less the probability of
    the class that says nothing was found; where the model has none, its greatest probability.
    """
    each: Float64Array = np.asarray(pictures, np.float64)
    if model.reads.aggregate is Aggregate.MEAN:
        rests_on = np.arange(len(each))
    else:
        count = model.reads.top_k or 1
        # Stable: of equals, the earlier picture.
        rests_on = np.argsort(-_distance_from_normal(each, model), kind="stable")[:count]
    together = np.clip(each[rests_on].mean(axis=0), 0.0, 1.0)
    return Aggregated(
        tuple(float(value) for value in together), tuple(int(place) for place in rests_on)
    )


def _distance_from_normal(each: Float64Array, model: ModelDescription) -> Float64Array:
    for index, declared in enumerate(model.classes):
        if declared.no_abnormality:
            return np.asarray(1.0 - each[:, index])
    return np.asarray(each.max(axis=1))
