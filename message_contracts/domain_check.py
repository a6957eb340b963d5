"""What a model says of its domain check: how it knows a picture that is none of its kind."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

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
