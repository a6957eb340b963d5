from pathlib import Path

import numpy as np
import pytest

from model_training.checkpoint import Checkpoint, Epoch, Progress


def test_what_was_saved_is_read_again_exactly(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "a.npz")
    variables = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, dtype=np.int64)]
    best = [np.ones(2, dtype=np.float32) / 3]
    progress = Progress(2, 5, [0.1, 1 / 3], [Epoch(1, 0.5, 0.25, 0.75), Epoch(2, 0.4)])

    checkpoint.save(progress, variables, best)
    found = checkpoint.read()

    assert found is not None
    assert found[0] == progress
    for ours, theirs in zip([*found[1], *found[2]], [*variables, *best], strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half of a file"])
def test_what_cannot_be_read_is_as_if_nothing_was_saved(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "a.npz"
    if content is not None:
        file.write_bytes(content)

    assert Checkpoint(file).read() is None


def test_a_save_that_was_cut_off_leaves_the_last_one(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "a.npz")
    checkpoint.save(Progress(epoch=1), [np.zeros(3)], [])
    (tmp_path / "a.npz.unfinished").write_bytes(b"half")

    found = checkpoint.read()

    assert found is not None
    assert found[0].epoch == 1


def test_the_best_version_is_the_one_with_the_lowest_validation_loss() -> None:
    losses = (0.9, 0.5, 0.7, 0.5)
    history = [Epoch(number, 0.1, loss, 0.5) for number, loss in enumerate(losses, start=1)]
    progress = Progress(history=history)

    assert progress.best == history[1]
    assert progress.epochs_since_best == 2


def test_without_validation_no_version_is_the_best() -> None:
    progress = Progress(history=[Epoch(1, 0.3)])

    assert progress.best is None
    assert progress.epochs_since_best == 0
