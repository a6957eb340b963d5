"""Where a training stands, on disk: after kill -9 it goes on as if nothing had been.

One file holds all that the next step depends on: every variable of network and optimizer, the
state of the random layers among them, and the numbers of epoch and step, from which order and
augmentation of the pictures are drawn anew. It takes its name only when it is whole and on disk.
"""

import json
import os
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    number: int
    """From 1."""
    loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass
class Progress:
    """How far a training has come."""

    epoch: int = 0
    """Of the epoch under way, from 0."""
    step: int = 0
    """Steps of that epoch that are done."""
    losses: list[float] = field(default_factory=list)
    """Of those steps."""
    history: list[Epoch] = field(default_factory=list)

    @property
    def best(self) -> Epoch | None:
        """The epoch with the lowest validation loss, the earlier of equals."""
        validated = [each for each in self.history if each.validation_loss is not None]
        return min(validated, key=lambda each: each.validation_loss or 0.0, default=None)

    @property
    def epochs_since_best(self) -> int:
        """How many epochs have been no better."""
        return len(self.history) - self.best.number if self.best else 0


class Checkpoint:
    """The checkpoint of one training; the folder is there."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def save(self, progress: Progress, variables: Arrays, best: Arrays) -> None:
        """Keep where the training stands, and the weights of the best version so far."""
        named = {f"variable_{place}": each for place, each in enumerate(variables)}
        named["progress"] = np.array(json.dumps(asdict(progress)))
        named |= {f"best_{place}": each for place, each in enumerate(best)}
        unfinished = self._file.with_name(f"{self._file.name}.unfinished")
        with unfinished.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **named)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(self._file)

    def read(self) -> tuple[Progress, Arrays, Arrays] | None:
        """Return what was saved last; ``None`` where nothing was, or it cannot be read."""
        try:
            with self._file.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
                said = json.loads(str(saved["progress"]))
                variables = _numbered(saved, "variable_")
                best = _numbered(saved, "best_")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        history = [Epoch(**each) for each in said.pop("history")]
        return Progress(**said, history=history), variables, best

    def remove(self) -> None:
        """Forget it: the training is over."""
        self._file.unlink(missing_ok=True)


def _numbered(saved: Any, prefix: str) -> Arrays:
    count = sum(name.startswith(prefix) for name in saved.files)
    return [saved[f"{prefix}{place}"] for place in range(count)]
