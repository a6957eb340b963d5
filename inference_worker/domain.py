"""Whether a picture is of the kind that a model learned from; if not, the model does not judge it.

A softmax spreads its whole mass over the classes that it has, so a shoe becomes a pneumonia. The
distance of the picture's features from those of the training pictures tells the two apart. What
they are compared with is a file beside the weights: plain arrays, never a pickle. NumPy only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from inference_worker.model_folder import InvalidModelFolder, ModelFolder, sha256_of
from message_contracts.domain_check import DomainCheck, DomainMethod

FloatArray = npt.NDArray[np.float64]
REASON = (
    "The picture is not of the kind that the model learned from "
    "(distance {distance:.2f}, at most {threshold:.2f}), so the model does not judge it."
)


class Reference(Protocol):
    """What a picture's features are compared with."""

    @property
    def channels(self) -> int:
        """How many features a picture has."""

    def distances(self, features: FloatArray) -> FloatArray:
        """Return how far each of ``[n, channels]`` is from the training pictures, ``[n]``."""

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return what the file keeps, by name."""


@dataclass(frozen=True)
class ClassMeans:
    """Mahalanobis distance from the nearest class (Lee et al., NeurIPS 2018, §2.1)."""

    means: FloatArray
    """``[classes, channels]``."""
    whitening: FloatArray
    """``[channels, channels]``: features times this have the shared covariance 1."""

    @property
    def channels(self) -> int:
        """How many features a picture has."""
        return int(self.means.shape[1])

    def distances(self, features: FloatArray) -> FloatArray:
        """Return the distance in standard deviations per channel, so 1 is usual."""
        gaps = (features[:, np.newaxis] - self.means) @ self.whitening
        squares = np.square(gaps).mean(axis=-1)
        return np.asarray(np.sqrt(squares.min(axis=1)))

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return means and whitening."""
        return {
            "means": self.means.astype(np.float32),
            "whitening": self.whitening.astype(np.float32),
        }


@dataclass(frozen=True)
class Neighbors:
    """Distance to the k-th nearest training picture (Sun et al., ICML 2022, §4)."""

    features: FloatArray
    """``[pictures, channels]``, each of length 1."""
    k: int

    @property
    def channels(self) -> int:
        """How many features a picture has."""
        return int(self.features.shape[1])

    def distances(self, features: FloatArray) -> FloatArray:
        """Return the Euclidean distance between features of length 1: 0 is equal, 2 opposite."""
        cosines = unit_length(features) @ self.features.T
        nearest = np.partition(cosines, -self.k, axis=1)[:, -self.k]
        return np.asarray(np.sqrt(np.maximum(2 - 2 * nearest, 0)))

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return features and k."""
        return {
            "features": self.features.astype(np.float32),
            "k": np.array(self.k, dtype=np.float32),
        }


@dataclass(frozen=True)
class Domain:
    """The pictures that a model may judge."""

    reference: Reference
    threshold: float

    def distances(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """Return the distance of each of ``[n, channels]`` from the training pictures."""
        return self.reference.distances(np.asarray(features, dtype=np.float64))

    def refusal(self, distance: float) -> str | None:
        """Return why a picture at this distance is not judged; ``None`` where it is."""
        if distance <= self.threshold:  # false for a distance that is no number
            return None
        return REASON.format(distance=distance, threshold=self.threshold)


def load_domain(folder: ModelFolder) -> Domain | None:
    """Read what a model folder compares pictures with; ``None`` where it declares no domain.

    Raises
    ------
    InvalidModelFolder
        The file is absent, has another digest than the one declared, or has not the arrays that
        the method needs.
    """
    check = folder.description.domain
    if check is None:
        return None
    file = folder.path / check.file
    name = folder.path.name
    if not file.is_file():
        raise InvalidModelFolder(
            f"{name}: domain.file: there is no file {check.file} in the folder"
        )
    if sha256_of(file) != check.sha256:
        raise InvalidModelFolder(
            f"{name}: domain.sha256: {check.file} has another digest; restore the file that was "
            "described, or fit and describe the domain again"
        )
    try:
        return Domain(_reference(check, _read(file)), check.threshold)
    except (LookupError, TypeError, ValueError, BadZipFile, EOFError, OSError) as error:
        raise InvalidModelFolder(
            f"{name}: domain.file: {check.file} has not the arrays of the method {check.method}"
        ) from error


def write_reference(reference: Reference, file: Path) -> None:
    """Write a reference so that ``load_domain`` reads the same one; same content, same bytes."""
    with file.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **reference.arrays())


def unit_length(features: FloatArray) -> FloatArray:
    """Return features scaled to length 1; zeros stay zeros."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(np.divide(features, length, out=np.zeros_like(features), where=length > 0))


def _read(file: Path) -> dict[str, FloatArray]:
    content = np.load(file, allow_pickle=False)
    if not isinstance(content, np.lib.npyio.NpzFile):
        raise ValueError("one array alone")  # noqa: TRY004 -- the file's fault, not the caller's
    with content:
        arrays = {name: content[name].astype(np.float64) for name in content.files}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("an array has a value that is no number")
    return arrays


def _reference(check: DomainCheck, arrays: Mapping[str, FloatArray]) -> Reference:
    if check.method is DomainMethod.MAHALANOBIS:
        means, whitening = arrays["means"], arrays["whitening"]
        channels = means.shape[1]
        if whitening.shape != (channels, channels):
            raise ValueError("whitening does not fit means")
        return ClassMeans(means, whitening)
    features, k = arrays["features"], int(arrays["k"])
    if features.ndim != 2 or not 1 <= k <= len(features):  # noqa: PLR2004 -- [pictures, channels]
        raise ValueError("k must be between 1 and the number of features")
    return Neighbors(features, k)
