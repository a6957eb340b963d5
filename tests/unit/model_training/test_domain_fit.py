"""A domain is fitted to what a model learned from, and its threshold to what was held out."""

import numpy as np
import numpy.typing as npt
import pytest

from message_contracts.domain_check import DomainMethod
from model_training.domain_fit import (
    FITS,
    KEPT_SHARE,
    fit_class_means,
    fit_domain,
    separation,
    usual_distances,
    with_kind,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CHANNELS = 12
METHODS = sorted(FITS)


def two_classes(count: int, seed: int) -> tuple[FloatArray, IntArray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    features = 5 + random.normal(size=(count, CHANNELS)) * np.linspace(0.5, 2, CHANNELS)
    features[:, 0] += 8 * labels
    return features, labels


@pytest.mark.parametrize("method", METHODS)
def test_unseen_pictures_of_its_kind_are_kept_as_often_as_promised(method: DomainMethod) -> None:
    features, labels = two_classes(600, seed=1)
    fresh, _ = two_classes(2000, seed=2)

    fitted = fit_domain(method, features, labels, np.arange(600) % 5)

    kept = np.mean(fitted.reference.distances(fresh) <= fitted.threshold)
    assert kept == pytest.approx(KEPT_SHARE, abs=0.015)


@pytest.mark.parametrize("method", METHODS)
def test_pictures_of_another_kind_are_farther_than_the_threshold(method: DomainMethod) -> None:
    features, labels = two_classes(400, seed=3)
    inside, _ = two_classes(200, seed=4)
    outside = -inside

    found = separation(
        fit_domain(method, features, labels, np.arange(400) % 5), inside, {"negatives": outside}
    )

    assert found["outside_refused"] == 1.0
    assert found["inside_refused"] < 0.06
    assert found["roc_auc"] == 1.0
    assert found["nearest_outside"] > 1


def test_what_lies_between_two_classes_is_of_neither() -> None:
    features, labels = two_classes(400, seed=5)
    reference = fit_class_means(features, labels)
    middle = features.mean(axis=0, keepdims=True)

    assert reference.distances(middle)[0] > np.median(reference.distances(features))


def test_fewer_pictures_than_channels_can_be_fitted() -> None:
    features, labels = two_classes(CHANNELS // 2, seed=6)

    distances = fit_class_means(features, labels).distances(features)

    assert np.isfinite(distances).all()


def test_a_channel_that_never_varies_is_no_trouble() -> None:
    features, labels = two_classes(100, seed=7)
    features[:, 3] = 1.0

    assert np.isfinite(fit_class_means(features, labels).distances(features)).all()


def test_phantoms_are_taken_for_its_own_and_nothing_else_changes() -> None:
    features, labels = two_classes(300, seed=8)
    phantoms = -features[:4]
    fitted = fit_domain(DomainMethod.MAHALANOBIS, features, labels, np.arange(300) % 5)
    reference = fit_class_means(features, labels)

    more = with_kind(reference, phantoms)

    assert (reference.distances(phantoms) > fitted.threshold).all()
    assert (more.distances(phantoms.mean(axis=0, keepdims=True)) < 1e-9).all()
    assert more.distances(features) == pytest.approx(reference.distances(features))


@pytest.mark.parametrize("method", METHODS)
def test_a_tenth_of_unseen_pictures_lies_in_each_usual_part(method: DomainMethod) -> None:
    features, labels = two_classes(600, seed=1)
    fresh, _ = two_classes(4000, seed=2)

    fitted = fit_domain(method, features, labels, np.arange(600) % 5)

    assert fitted.usual is not None
    assert fitted.usual.picture_count == 600
    parts = np.searchsorted(fitted.usual.deciles, fitted.reference.distances(fresh))
    assert np.bincount(parts, minlength=10) / 4000 == pytest.approx(np.full(10, 0.1), abs=0.06)


@pytest.mark.parametrize("distances", [np.arange(9.0), np.ones(100)])
def test_a_few_pictures_or_the_same_one_again_tell_of_nothing_usual(
    distances: npt.NDArray[np.float64],
) -> None:
    assert usual_distances(distances) is None
