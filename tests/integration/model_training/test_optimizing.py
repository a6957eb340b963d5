"""The learning rate, and the optimizers that take it."""

import pytest

from model_training.optimizing import learning_rate_at, optimizer_of
from model_training.recipe import FineTuning

pytestmark = pytest.mark.tensorflow
STEPS, PEAK = 100, 0.02


def how(**settings: object) -> FineTuning:
    common = {"backbone": "mobilenet_v1", "side": 64, "epochs": 4, "batch": 8}
    common |= {"learning_rate": PEAK, "label_smoothing": 0, "weight_decay": 1e-4}
    return FineTuning.model_validate(common | settings)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_it_rises_over_the_first_tenth_from_a_twentieth_of_the_peak(schedule: str) -> None:
    rates = [learning_rate_at(how(schedule=schedule), step, STEPS) for step in range(11)]

    assert rates[0] == pytest.approx(PEAK / 20)
    assert rates[5] == pytest.approx((PEAK / 20 + PEAK) / 2)
    assert rates[10] == pytest.approx(PEAK)


@pytest.mark.parametrize(
    ("schedule", "halfway", "last"),
    [("cosine", PEAK / 2, 0.0), ("linear", PEAK / 2, 0.0), ("constant", PEAK, PEAK)],
)
def test_it_falls_as_the_recipe_says(schedule: str, halfway: float, last: float) -> None:
    chosen = how(schedule=schedule)

    assert learning_rate_at(chosen, 55, STEPS) == pytest.approx(halfway)
    assert learning_rate_at(chosen, STEPS, STEPS) == pytest.approx(last, abs=1e-9)


def test_a_training_of_one_step_begins_at_the_peak() -> None:
    assert learning_rate_at(how(), 0, 1) == PEAK


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_every_optimizer_takes_a_rate_for_each_step(optimizer: str) -> None:
    found = optimizer_of(how(optimizer=optimizer))

    found.learning_rate = 0.25

    assert float(found.learning_rate) == pytest.approx(0.25)
    assert found.weight_decay == pytest.approx(1e-4)
