from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inference_worker.micro_batches import Closed, MicroBatches
from tests.peers.processes import wait_until

Batch = npt.NDArray[np.uint8]
PATIENT_S = 30


class Network:
    """Says of a picture what its first pixel is; can be held up."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.sizes: list[int] = []
        self.explained: list[int | None] = []
        self.free = threading.Event()
        self.begun = threading.Event()
        self.poison: int | None = None

    def __call__(self, batch: Batch, owners: Sequence[str], explained: int | None) -> Sequence[int]:
        self.explained.append(explained)
        self.seen.append(list(owners))
        self.sizes.append(len(batch))
        self.begun.set()
        assert self.free.wait(PATIENT_S)
        values = [int(picture.flat[0]) for picture in batch]
        if self.poison in values:
            raise ArithmeticError
        return values


def pictures(count: int, value: int = 7, side: int = 4) -> Batch:
    return np.full((count, side, side), value, np.uint8)


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def batches(network: Network) -> Iterator[MicroBatches]:
    opened = MicroBatches(network, "test")
    yield opened
    network.free.set()
    opened.close()


@pytest.fixture
def ask(network: Network, batches: MicroBatches) -> Iterator[Any]:
    """Ask from a thread of its own; with the model held up, requests wait in the order made."""
    with ThreadPoolExecutor(16) as pool:

        def asked(batch: Batch, owner: str, *, urgent: bool = False) -> Future[Sequence[Any]]:
            before, is_held_up = waiting(batches), network.begun.is_set()
            future = pool.submit(batches.predict, batch, owner, urgent=urgent)
            if is_held_up:
                wait_until(lambda: waiting(batches) > before, timeout_s=PATIENT_S, what="it waits")
            return future

        yield asked


def waiting(batches: MicroBatches) -> int:
    return len(batches._urgent) + len(batches._routine)


def held_up(network: Network, ask: Any) -> Future[Sequence[Any]]:
    first: Future[Sequence[Any]] = ask(pictures(1), "first")
    assert network.begun.wait(PATIENT_S)
    return first


def test_what_waits_for_a_busy_model_is_given_to_it_together(network: Network, ask: Any) -> None:
    first = held_up(network, ask)
    waiting = [ask(pictures(2, value), f"study {value}") for value in (1, 2, 3)]

    network.free.set()

    assert first.result(PATIENT_S) == [7]
    assert [each.result(PATIENT_S) for each in waiting] == [[1, 1], [2, 2], [3, 3]]
    assert network.sizes == [1, 6]


def test_what_is_to_explain_another_class_is_given_to_it_alone(
    network: Network, batches: MicroBatches, ask: Any
) -> None:
    held_up(network, ask)
    with ThreadPoolExecutor(2) as pool:
        for count, explained in enumerate((1, 2), start=1):
            pool.submit(batches.predict, pictures(1), "", urgent=True, explained=explained)
            wait_until(lambda n=count: waiting(batches) == n, what="it waits")

        network.free.set()

    assert network.explained == [None, 1, 2]


def test_a_batch_is_never_larger_than_allowed(network: Network, ask: Any) -> None:
    held_up(network, ask)
    waiting = [ask(pictures(10, value), "one") for value in (1, 2)]

    network.free.set()

    assert [len(each.result(PATIENT_S)) for each in waiting] == [10, 10]
    assert network.sizes == [1, 10, 10]


def test_where_there_is_no_memory_for_them_together_each_is_read_alone(
    network: Network, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any, **__: Any) -> Batch:
        raise MemoryError

    held_up(network, ask)
    waiting = [ask(pictures(2, value), f"study {value}") for value in (1, 2)]
    monkeypatch.setattr(np, "concatenate", no_memory)

    network.free.set()

    assert [each.result(PATIENT_S) for each in waiting] == [[1, 1], [2, 2]]
    assert network.sizes == [1, 2, 2]


def test_an_urgent_request_overtakes_those_that_wait(network: Network, ask: Any) -> None:
    held_up(network, ask)
    routine = [ask(pictures(16, 1), "routine") for _ in range(3)]
    urgent = ask(pictures(1, 2), "urgent", urgent=True)

    network.free.set()

    assert urgent.result(PATIENT_S) == [2]
    assert all(each.result(PATIENT_S) for each in routine)
    assert network.seen[1] == ["urgent"]


def test_pictures_of_another_shape_go_in_another_batch(network: Network, ask: Any) -> None:
    held_up(network, ask)
    small, large = ask(pictures(1, 1), "small"), ask(pictures(1, 2, side=8), "large")

    network.free.set()

    assert (small.result(PATIENT_S), large.result(PATIENT_S)) == ([1], [2])
    assert network.sizes == [1, 1, 1]


def test_one_that_the_model_cannot_bear_fails_no_other(network: Network, ask: Any) -> None:
    network.poison = 66
    held_up(network, ask)
    good, bad, fine = (ask(pictures(1, value), f"study {value}") for value in (1, 66, 3))

    network.free.set()

    assert (good.result(PATIENT_S), fine.result(PATIENT_S)) == ([1], [3])
    with pytest.raises(ArithmeticError):
        bad.result(PATIENT_S)
    assert network.seen[1:] == [
        ["study 1", "study 66", "study 3"],
        *(["study 1"], ["study 66"], ["study 3"]),
    ]


def test_what_waits_when_it_is_closed_is_told_so(
    network: Network, batches: MicroBatches, ask: Any
) -> None:
    first = held_up(network, ask)
    late = ask(pictures(1), "late")
    closing = threading.Thread(target=batches.close)
    closing.start()

    with pytest.raises(Closed):
        late.result(PATIENT_S)
    network.free.set()
    closing.join(PATIENT_S)

    assert first.result(PATIENT_S) == [7]
    with pytest.raises(Closed):
        batches.predict(pictures(1), "later", urgent=False)
