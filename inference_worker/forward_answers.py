"""What a worker and the process of a model say to one another."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from inference_worker.preprocessing import Picture


@dataclass(frozen=True)
class Question:
    """A batch of pictures."""

    batch: Picture
    explained: int | None = None
    """The place of the class that the heat maps are to explain; ``None``: the most probable."""


class Kind(StrEnum):
    """Of an answer."""

    READY = "ready"
    INVALID = "invalid"
    """The folder cannot be used; ``content`` is a sentence that names the field."""
    DONE = "done"
    """``content`` are the predictions."""
    RAISED = "raised"
    """``content`` is the class of the error."""


@dataclass(frozen=True)
class Answer:
    """One answer."""

    kind: Kind
    content: Any
