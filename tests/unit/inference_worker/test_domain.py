"""How far a picture is from what a model learned from, and the file that says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.domain import (
    ClassMeans,
    Domain,
    Neighbors,
    Reference,
    load_domain,
    unit_length,
    write_reference,
)
from inference_worker.model_folder import InvalidModelFolder, ModelFolder, sha256_of
from message_contracts.domain_check import DomainCheck, DomainMethod
from tests.readings import a_model

CHANNELS = 4
MEANS = ClassMeans(np.array([[0.0, 0, 0, 0], [10.0, 0, 0, 0]]), np.diag([1.0, 0.5, 1, 1]))
NEIGHBORS = Neighbors(np.eye(3, CHANNELS), k=2)


def a_folder(path: Path, reference: Reference, **changes: Any) -> ModelFolder:
    write_reference(reference, path / "domain.npz")
    is_means = isinstance(reference, ClassMeans)
    check = {
        "method": DomainMethod.MAHALANOBIS if is_means else DomainMethod.NEAREST_NEIGHBOR,
        "layer": "pooled",
        "file": "domain.npz",
        "sha256": sha256_of(path / "domain.npz"),
        "threshold": 2.0,
    } | changes
    described = a_model(domain=DomainCheck.model_validate(check))
    return ModelFolder(described, path, path / described.weights, described.weights_sha256)


def test_the_distance_is_that_from_the_nearest_class() -> None:
    distances = MEANS.distances(np.array([[0.0, 0, 0, 0], [10.0, 0, 2, 0], [4.0, 0, 0, 0]]))

    assert distances.tolist() == [0.0, 1.0, 2.0]


def test_a_channel_that_varies_counts_less() -> None:
    usual, odd = MEANS.distances(np.array([[0.0, 4, 0, 0], [0.0, 0, 4, 0]]))

    assert usual == odd / 2


def test_the_kth_neighbor_is_looked_at_by_direction_alone() -> None:
    distances = NEIGHBORS.distances(np.array([[3.0, 3, 0, 0], [0.0, 0, 0, 5]]))

    assert distances == pytest.approx([np.sqrt(2 - np.sqrt(2)), np.sqrt(2)])


@given(st.lists(st.floats(-1e6, 1e6), min_size=CHANNELS, max_size=CHANNELS))
def test_no_features_make_a_distance_that_is_no_number(values: list[float]) -> None:
    features = np.array([values])

    for reference in (MEANS, NEIGHBORS):
        distance = reference.distances(features)
        assert np.isfinite(distance).all()
        assert (distance >= 0).all()
    assert np.linalg.norm(unit_length(features)) <= 1 + 1e-9


def test_what_is_farther_than_the_threshold_is_refused_with_its_distance() -> None:
    domain = Domain(MEANS, threshold=1.5)

    assert domain.refusal(1.5) is None
    assert "distance 1.51, at most 1.50" in str(domain.refusal(1.51))


def test_a_distance_that_is_no_number_is_refused() -> None:
    assert Domain(MEANS, threshold=1.5).refusal(float("nan")) is not None


@pytest.mark.parametrize("reference", [MEANS, NEIGHBORS])
def test_a_written_reference_is_read_again(reference: Reference, tmp_path: Path) -> None:
    features = np.random.default_rng(1).normal(size=(5, CHANNELS))

    domain = load_domain(a_folder(tmp_path, reference))

    assert domain is not None
    assert domain.threshold == 2.0
    assert domain.distances(features) == pytest.approx(reference.distances(features), rel=1e-5)


def test_the_same_reference_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    write_reference(MEANS, tmp_path / "one.npz")
    write_reference(MEANS, tmp_path / "two.npz")

    assert sha256_of(tmp_path / "one.npz") == sha256_of(tmp_path / "two.npz")


def test_a_model_may_have_no_domain(tmp_path: Path) -> None:
    folder = ModelFolder(a_model(), tmp_path, tmp_path / "weights.keras", "")

    assert load_domain(folder) is None


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, MEANS, file="other.npz")

    with pytest.raises(InvalidModelFolder, match=r"domain\.file: there is no file other\.npz"):
        load_domain(folder)


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, MEANS)
    write_reference(NEIGHBORS, tmp_path / "domain.npz")

    with pytest.raises(InvalidModelFolder, match=r"domain\.sha256"):
        load_domain(folder)


def test_a_file_of_another_method_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, NEIGHBORS, method=DomainMethod.MAHALANOBIS)

    with pytest.raises(InvalidModelFolder, match=r"domain\.file: .* the method mahalanobis"):
        load_domain(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive at all", b"\x93NUMPY"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = a_folder(tmp_path, MEANS)
    (tmp_path / "domain.npz").write_bytes(content)
    folder = a_folder_of(folder, sha256_of(tmp_path / "domain.npz"))

    with pytest.raises(InvalidModelFolder, match=r"domain\.file"):
        load_domain(folder)


@pytest.mark.parametrize(
    ("reference", "arrays"),
    [
        (MEANS, {"means": np.zeros(4), "whitening": np.eye(4)}),
        (NEIGHBORS, {"features": np.eye(3), "k": np.arange(2)}),
    ],
)
def test_arrays_of_another_shape_are_refused(
    reference: Reference, arrays: dict[str, Any], tmp_path: Path
) -> None:
    folder = a_folder(tmp_path, reference)
    np.savez(tmp_path / "domain.npz", **arrays)
    folder = a_folder_of(folder, sha256_of(tmp_path / "domain.npz"))

    with pytest.raises(InvalidModelFolder, match=r"domain\.file: .* has not the arrays"):
        load_domain(folder)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, MEANS)
    with (tmp_path / "domain.npz").open("wb") as stream:
        np.savez(stream, allow_pickle=True, means=np.array([{}], dtype=object))
    folder = a_folder_of(folder, sha256_of(tmp_path / "domain.npz"))

    with pytest.raises(InvalidModelFolder, match=r"domain\.file"):
        load_domain(folder)


def a_folder_of(folder: ModelFolder, digest: str) -> ModelFolder:
    domain = folder.description.domain
    assert domain is not None
    domain = domain.model_copy(update={"sha256": digest})
    described = folder.description.model_copy(update={"domain": domain})
    return ModelFolder(described, folder.path, folder.weights_path, folder.weights_sha256)
