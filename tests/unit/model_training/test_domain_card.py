"""What a model card says of refusals."""

from typing import Any

import pytest

from message_contracts.domain_check import DomainCheck, DomainMethod
from message_contracts.model_description import ModelDescription
from model_training.domain_card import with_refusals
from tests.readings import a_model

CARD = (
    "**Not for clinical use.**\n\n# Shapes: `shapes` 1.0.0\n\n|  |  |\n| --- | --- |\n"
    "| device UID | `2.25.1` |\n\n## Uncertain\n\nBelow 0.6.\n\n## Heat map\n\nGrad-CAM.\n"
)
METRICS: dict[str, Any] = {
    "domain_methods": {
        "mahalanobis at features": {
            "inside_refused": 0.0125,
            "outside_refused": 1.0,
            "nearest_outside": 1.4567,
        }
    },
    "refusal": {
        "in_domain": {"n": 200, "refused": 3, "share": 0.015, "lower": 0.0, "upper": 0.035},
        "wrong_domain": {
            "n": 250,
            "refused": 249,
            "share": 0.996,
            "sets": {"brain": {"n": 250, "refused": 249}},
        },
        "dicom": {
            "out_of_domain": 40,
            "refused": 39,
            "decodable": 30,
            "refused_by_pixels": 29,
        },
    },
}


def a_refusing_model(method: DomainMethod = DomainMethod.MAHALANOBIS) -> ModelDescription:
    domain = DomainCheck(
        method=method, layer="features", file="domain.npz", sha256="5e" * 32, threshold=1.25
    )
    return a_model(domain=domain)


def test_the_section_stands_before_the_heat_map_and_says_what_was_measured() -> None:
    card = with_refusals(CARD, a_refusing_model(), METRICS)

    assert card.index("## Uncertain") < card.index("## What it refuses") < card.index("## Heat map")
    assert "of the layer `features`, at most 1.250" in card
    assert "| mahalanobis at features | 1.2% | 100.0% | 1.46 |" in card
    assert "of 200 validation pictures of its kind 3 are refused" in card
    assert "of 250 pictures of other kinds 249 (99.6%; brain 249 of 250)" in card
    assert "Of 40 DICOM files" in card


@pytest.mark.parametrize(
    ("method", "paper"),
    [
        (DomainMethod.MAHALANOBIS, "Lee et al., NeurIPS 2018"),
        (DomainMethod.NEAREST_NEIGHBOR, "Sun et al., ICML 2022"),
    ],
)
def test_the_method_is_cited(method: DomainMethod, paper: str) -> None:
    assert paper in with_refusals(CARD, a_refusing_model(method), METRICS)


def test_the_first_line_stays_and_version_and_device_are_those_of_the_model() -> None:
    card = with_refusals(CARD, a_refusing_model(), METRICS)

    assert card.startswith("**Not for clinical use.**\n")
    assert "# Shapes: `shapes` 1.2.3\n" in card
    assert "| device UID | `2.25.271828` |" in card


def test_written_again_it_says_it_once() -> None:
    once = with_refusals(CARD, a_refusing_model(), METRICS)

    assert with_refusals(once, a_refusing_model(), METRICS) == once


def test_a_model_that_refuses_nothing_says_so() -> None:
    assert "no domain has been fitted" in with_refusals(CARD, a_model(), {})
