"""Which instances of a study a model reads, and how many pictures become one finding.

Declared in ``model.yaml`` under ``reads``; nothing in it is evaluated as code.
"""

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Self

from pydantic import Field, model_validator

from message_contracts.applicability import LONGEST_TEXT, Declared, Pattern


class Reads(StrEnum):
    """What the pictures of a study are to the model."""

    VIEWS = "views"
    """Each instance that the model's rule matches counts the same, as the views of a radiograph."""
    SLICES = "slices"
    """One series of those that match is read; each of its frames is a slice."""


class Aggregate(StrEnum):
    """How the probabilities of many pictures become those of the study."""

    MEAN = "mean"
    """The mean over all."""
    MAX = "max"
    """Those of the one picture that is farthest from normal."""
    TOP_K_MEAN = "top_k_mean"
    """The mean over the ``top_k`` pictures that are farthest from normal."""


class StudySelection(Declared):
    """What of a study is read, of all that the model's rule matches."""

    what: Reads = Reads.VIEWS
    series_description: tuple[Pattern, ...] = Field(default=(), max_length=32)
    """Of several series, the one whose Series Description (0008,103E) matches the earliest of these
    is read; of equals, and where none matches, the one with most slices."""
    every: int = Field(default=1, ge=1, le=100)
    """Of the slices in their order, the first, and every so many-th after it."""
    aggregate: Aggregate = Aggregate.MEAN
    top_k: int | None = Field(default=None, ge=1, le=1000)

    @model_validator(mode="after")
    def _fields_belong_together(self) -> Self:
        if self.what is Reads.VIEWS and (self.series_description or self.every != 1):
            raise ValueError("series_description and every are for what: slices")
        if (self.top_k is not None) != (self.aggregate is Aggregate.TOP_K_MEAN):
            raise ValueError("top_k is needed for aggregate: top_k_mean, and for no other")
        return self

    def preference(self, series_description: str) -> int:
        """Return the place of the first pattern that the description matches; the least is best."""
        text = series_description.strip().upper()[:LONGEST_TEXT]
        for place, pattern in enumerate(self.series_description):
            if fnmatchcase(text, pattern.upper().replace("[", "[[]")):
                return place
        return len(self.series_description)
