"""What the process of a model says to its worker."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


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
