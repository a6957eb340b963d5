from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from inference_worker.forward_process import Fault, ForwardProcess, Limits, ModelFault
from inference_worker.model_folder import InvalidModelFolder, ModelFolder
from inference_worker.served_model import (
    MOST_FAULTS,
    ModelGone,
    ModelSetAside,
    ServedModel,
)
from tests.readings import a_model

LIMITS = Limits(deadline_s=1, memory_bytes=1000)
PICTURE = np.zeros((1, 4, 4), np.uint8)


@dataclass
class Behavior:
    """What every process of the model does, and what became of them."""

    faults: list[Fault | None] = field(default_factory=list)
    """For each batch, in turn; none of them after that."""
    memory_bytes: int = 0
    started: int = 0
    closed: int = 0
    refuses: str | None = None
    hangs: bool = False
    begun: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def start(self, _path: Path, _limits: Limits) -> ForwardProcess:
        if self.refuses:
            raise InvalidModelFolder(self.refuses)
        self.started += 1
        return cast("ForwardProcess", Process(self))


@dataclass
class Process:
    behavior: Behavior

    @property
    def memory_bytes(self) -> int:
        return self.behavior.memory_bytes

    def predict(self, batch: Any, _explained: int | None = None) -> Sequence[str]:
        if self.behavior.hangs:
            self.behavior.begun.set()
            assert self.behavior.let_go.wait(30)
            raise ModelFault(Fault.DIED, "was killed")
        fault = self.behavior.faults.pop(0) if self.behavior.faults else None
        if fault is not None:
            if fault is not Fault.RAISED:
                self.close()
            raise ModelFault(fault, f"{fault} it did")
        return ["read"] * len(batch)

    def kill(self) -> None:
        self.behavior.let_go.set()

    def close(self) -> None:
        self.behavior.closed += 1


@pytest.fixture
def behavior() -> Behavior:
    return Behavior()


@pytest.fixture
def served(behavior: Behavior) -> Iterator[ServedModel]:
    model = ServedModel(opened(), LIMITS, behavior.start)
    yield model
    model.close()


def opened() -> Callable[[], AbstractContextManager[ModelFolder]]:
    @contextmanager
    def folder() -> Iterator[ModelFolder]:
        yield ModelFolder(a_model(), Path("shapes"), Path("shapes/shapes.keras"), "5e" * 32)

    return folder


def read(model: ServedModel, study: str) -> Sequence[Any]:
    return model.reader(study, False)(PICTURE)


def try_to_read(model: ServedModel, study: str) -> None:
    with suppress(ModelFault):
        read(model, study)


@pytest.mark.parametrize("fault", [Fault.HANGS, Fault.DIED, Fault.LEAKS])
def test_a_process_that_is_gone_is_begun_again(
    fault: Fault, served: ServedModel, behavior: Behavior
) -> None:
    behavior.faults = [fault]

    with pytest.raises(ModelFault):
        read(served, "2.25.1")

    assert read(served, "2.25.1") == ["read"]
    assert behavior.started == 2


def test_one_that_only_raised_goes_on(served: ServedModel, behavior: Behavior) -> None:
    behavior.faults = [Fault.RAISED]

    with pytest.raises(ModelFault):
        read(served, "2.25.1")

    assert read(served, "2.25.2") == ["read"]
    assert behavior.started == 1


def test_a_model_that_fails_with_every_study_is_set_aside(
    served: ServedModel, behavior: Behavior
) -> None:
    behavior.faults = [Fault.HANGS] * 100
    for number in range(MOST_FAULTS - 1):
        with pytest.raises(ModelFault):
            read(served, f"2.25.{number}")

    with pytest.raises(ModelSetAside, match=r"shapes 1\.2\.3 is set aside .* 3 times in a row"):
        read(served, "2.25.9")

    asked = 100 - len(behavior.faults)
    with pytest.raises(ModelSetAside):
        read(served, "2.25.10")
    assert 100 - len(behavior.faults) == asked == MOST_FAULTS


def test_one_study_alone_does_not_take_the_model_away_from_the_others(
    served: ServedModel, behavior: Behavior
) -> None:
    behavior.faults = [Fault.DIED] * 5

    for _ in range(5):
        with pytest.raises(ModelFault):
            read(served, "2.25.66")

    assert read(served, "2.25.1") == ["read"]


def test_an_explanation_counts_for_the_study_that_it_is_asked_of(
    served: ServedModel, behavior: Behavior
) -> None:
    behavior.faults = [Fault.DIED] * MOST_FAULTS
    for _ in range(MOST_FAULTS - 1):
        try_to_read(served, "2.25.66")

    with pytest.raises(ModelFault):
        served.explain("2.25.66", PICTURE, 0)

    assert read(served, "2.25.1") == ["read"]


def test_not_even_one_study_is_tried_for_ever(served: ServedModel, behavior: Behavior) -> None:
    behavior.faults = [Fault.DIED] * 100

    for _ in range(MOST_FAULTS**2 - 1):
        try_to_read(served, "2.25.66")

    with pytest.raises(ModelSetAside):
        read(served, "2.25.66")


def test_an_answer_between_them_makes_faults_count_from_the_beginning(
    served: ServedModel, behavior: Behavior
) -> None:
    behavior.faults = [Fault.RAISED, Fault.RAISED, None] * 5

    for number in range(15):
        try_to_read(served, f"2.25.{number}")

    assert read(served, "2.25.99") == ["read"]


def test_a_model_that_cannot_be_begun_again_is_a_fault_and_then_set_aside(
    served: ServedModel, behavior: Behavior
) -> None:
    behavior.faults = [Fault.DIED]
    behavior.refuses = "shapes: weights: gone"
    try_to_read(served, "2.25.1")
    try_to_read(served, "2.25.2")

    with pytest.raises(ModelSetAside, match="gone"):
        read(served, "2.25.3")


def test_a_process_that_has_grown_is_replaced_and_its_answer_counts(
    served: ServedModel, behavior: Behavior
) -> None:
    behavior.memory_bytes = LIMITS.memory_bytes + 1

    assert read(served, "2.25.1") == ["read"]

    behavior.memory_bytes = 0
    assert read(served, "2.25.1") == ["read"]
    assert (behavior.started, behavior.closed) == (2, 1)


def test_one_that_always_grows_is_set_aside(served: ServedModel, behavior: Behavior) -> None:
    behavior.memory_bytes = LIMITS.memory_bytes + 1
    for _ in range(MOST_FAULTS):
        read(served, "2.25.1")

    with pytest.raises(ModelSetAside, match="has grown to more than"):
        read(served, "2.25.2")


def test_who_asks_one_that_was_let_go_is_to_ask_again(served: ServedModel) -> None:
    served.close()

    with pytest.raises(ModelGone):
        read(served, "2.25.1")


def test_letting_go_does_not_wait_for_one_that_hangs(
    served: ServedModel, behavior: Behavior
) -> None:
    behavior.hangs = True
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, served, "2.25.1")
        assert behavior.begun.wait(30)

        served.close()

        with pytest.raises(ModelGone):
            waiting.result(30)
    assert behavior.started == 1
