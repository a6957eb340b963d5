"""A model in its process: what it answers, and what becomes of one that does not."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from inference_worker import forward_process
from inference_worker.forward_process import Fault, ForwardProcess, Limits, ModelFault
from inference_worker.model_folder import InvalidModelFolder, ModelFolder, load_model_folder
from inference_worker.served_model import ServedModel
from tests.peers.processes import wait_until
from tests.tiny_model import drawn_pictures, make_tiny_model

ROOMY = Limits(deadline_s=60, memory_bytes=8 * 2**30)

# What a model's process does, without TensorFlow: it raises, hangs, leaks or ends by what the first
# pixel says.
POISON = """
import os, sys, time
from multiprocessing.connection import Connection
from inference_worker.forward_answers import Answer, Kind
worker = Connection(int(sys.argv[1]))
worker.send(Answer(Kind.READY, None))
held = []
while True:
    try:
        batch = worker.recv().batch
    except EOFError:
        break
    what = int(batch.flat[0])
    if what == 1:
        worker.send(Answer(Kind.RAISED, "ZeroDivisionError"))
        continue
    if what == 2:
        time.sleep(3600)
    if what == 3:
        while True:
            held.append(bytearray(os.urandom(1) * 2**24))
    if what == 4:
        os.abort()
    if what == 5:
        worker.send(Answer(Kind.DONE, [dict(os.environ)]))
        continue
    worker.send(Answer(Kind.DONE, [what] * len(batch)))
"""


@pytest.fixture
def poisoned_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., ForwardProcess]]:
    script = tmp_path / "poison.py"
    script.write_text(POISON)
    monkeypatch.setattr(forward_process, "CHILD", (sys.executable, str(script)))
    started = []

    def start(deadline_s: float = 60) -> ForwardProcess:
        limits = Limits(deadline_s=deadline_s, memory_bytes=512 * 2**20)
        started.append(ForwardProcess(tmp_path, limits))
        return started[-1]

    yield start
    for process in started:
        with suppress(OSError):
            process.close()


@pytest.fixture
def poisoned(poisoned_by: Callable[..., ForwardProcess]) -> ForwardProcess:
    return poisoned_by()


def picture(value: int) -> np.ndarray:
    return np.full((1, 4, 4), value, np.uint8)


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_that_raises_can_be_asked_again(poisoned: ForwardProcess) -> None:
    with pytest.raises(ModelFault, match="raised ZeroDivisionError") as raised:
        poisoned.predict(picture(1))

    assert raised.value.fault is Fault.RAISED
    assert poisoned.predict(picture(9)) == [9]


@pytest.mark.parametrize(
    ("what", "fault", "deadline_s", "reason"),
    [
        (2, Fault.HANGS, 3, "no answer within 3 s"),
        (3, Fault.LEAKS, 60, "more than 512 MiB"),
        (4, Fault.DIED, 60, "ended by itself"),
    ],
)
def test_one_that_hangs_leaks_or_crashes_is_ended(
    what: int,
    fault: Fault,
    deadline_s: float,
    reason: str,
    poisoned_by: Callable[..., ForwardProcess],
) -> None:
    poisoned = poisoned_by(deadline_s)

    with pytest.raises(ModelFault, match=reason) as raised:
        poisoned.predict(picture(what))

    assert raised.value.fault is fault
    assert not is_alive(poisoned.process_id)


def test_one_that_does_not_take_its_batch_is_ended(
    poisoned_by: Callable[..., ForwardProcess],
) -> None:
    poisoned = poisoned_by(3)
    # As one whose network keeps the interpreter's lock for itself; no socket holds so much.
    os.kill(poisoned.process_id, signal.SIGSTOP)

    with pytest.raises(ModelFault, match="took no batch within 3 s") as raised:
        poisoned.predict(np.zeros((16, 512, 512), np.uint8))

    assert raised.value.fault is Fault.HANGS
    assert not is_alive(poisoned.process_id)


def test_a_model_knows_nothing_of_the_workers_settings(
    poisoned_by: Callable[..., ForwardProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COUNTERSIGN_DATABASE_URL", "COUNTERSIGN_BROKER_URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    [environment] = poisoned_by().predict(picture(5))

    assert "secret" not in environment.values()
    assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


def test_what_an_operator_tunes_libraries_by_reaches_the_model(
    poisoned_by: Callable[..., ForwardProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = {
        "OPENBLAS_NUM_THREADS": "2",
        "MALLOC_ARENA_MAX": "4",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=4",
        "HSA_OVERRIDE_GFX_VERSION": "10.3.0",
        "XDG_CACHE_HOME": "/cache",
        "LD_PRELOAD": "",
    }
    for name, value in tuned.items():
        monkeypatch.setenv(name, value)

    [environment] = poisoned_by().predict(picture(5))

    assert {name: environment.get(name) for name in tuned} == tuned


def test_one_that_ended_while_nobody_asked_is_a_fault(poisoned: ForwardProcess) -> None:
    os.kill(poisoned.process_id, signal.SIGKILL)

    with pytest.raises(ModelFault) as raised:
        poisoned.predict(picture(9))

    assert raised.value.fault is Fault.DIED


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-chest")


@pytest.mark.tensorflow
def test_a_model_answers_from_its_process_and_goes_with_its_worker(tiny: Path) -> None:
    @contextmanager
    def opened() -> Iterator[ModelFolder]:
        yield load_model_folder(tiny)

    pictures, labels = drawn_pictures(8, seed=5)
    model = ServedModel(opened, ROOMY)
    process = model._process
    assert process is not None

    answers = model.reader("2.25.1", False)(pictures)

    assert [int(np.argmax(each.probabilities)) for each in answers] == list(labels)
    assert answers[0].cam.shape == (8, 8)
    foremost, other = int(labels[0]), int(labels[1])
    for place in (foremost, other):
        [explained] = model.explain("2.25.1", pictures[:1], place)
        # What a picture's sums round to may depend on how many are computed together.
        is_same = np.allclose(explained.cam, answers[0].cam, rtol=1e-3, atol=1e-6)
        assert is_same == (place == foremost)
    model.close()
    assert not is_alive(process.process_id)


@pytest.mark.tensorflow
def test_a_process_whose_worker_is_gone_ends(tiny: Path) -> None:
    process = ForwardProcess(tiny, ROOMY)

    process._connection.close()

    # Its exit code is ours to fetch.
    wait_until(
        lambda: process._process.poll() is not None, timeout_s=60, what="the process has ended"
    )


@pytest.mark.tensorflow
def test_a_folder_that_cannot_be_loaded_names_the_field(tiny: Path) -> None:
    (tiny / "weights.keras").rename(tiny / "elsewhere.keras")
    try:
        with pytest.raises(InvalidModelFolder, match=r"weights: there is no file"):
            ForwardProcess(tiny, ROOMY)
    finally:
        (tiny / "elsewhere.keras").rename(tiny / "weights.keras")
