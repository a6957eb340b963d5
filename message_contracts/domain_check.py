"""What a model says of its domain check: how it knows a picture that is none of its kind."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from message_contracts.applicability import Declared
from message_contracts.identifiers import Sha256


class DomainMethod(StrEnum):
    """How far a picture is from those that the model learned from."""

    MAHALANOBIS = "mahalanobis"
    """Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples (NeurIPS
    2018): from the mean of the nearest class, by a covariance that all classes share."""
    NEAREST_NEIGHBOR = "nearest_neighbor"
    """Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors (ICML 2022): from the
    k-th nearest picture, features scaled to length 1."""


class UsualDistances(Declared):
    """How far pictures of the model's kind are that it had not learned from: held out in turn."""

    picture_count: int = Field(ge=10)
    deciles: tuple[float, ...] = Field(min_length=9, max_length=9)
    """Nine distances that divide those pictures into ten parts of equal size."""

    @model_validator(mode="after")
    def _increases(self) -> Self:
        if any(one >= next_ for one, next_ in zip(self.deciles, self.deciles[1:], strict=False)):
            raise ValueError("deciles must increase")
        return self


class DomainCheck(Declared):
    """The ``domain`` of a ``model.yaml``: pictures farther away than ``threshold`` are refused."""

    method: DomainMethod
    layer: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    """The layer whose feature map, averaged over rows and columns, is compared; it lies at or
    below ``grad_cam_layer``."""
    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+\.npz$")]
    """What it is compared with, in the same folder."""
    sha256: Sha256
    threshold: float = Field(gt=0)
    """The largest distance that is still the model's domain."""
    usual: UsualDistances | None = None
    """What the distances of pictures that are read are held against: have the inputs drifted?"""
