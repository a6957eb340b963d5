"""What a model card says of refusals; the figures come from ``metrics.json`` alone."""

import re
from typing import Any

from message_contracts.domain_check import DomainCheck, DomainMethod
from message_contracts.model_description import ModelDescription

HEADING = "## What it refuses"
BEFORE = "## Heat map"
CITATIONS = {
    DomainMethod.MAHALANOBIS: (
        "Mahalanobis distance from the nearest class with a covariance that all classes share (Lee"
        " et al., NeurIPS 2018)"
    ),
    DomainMethod.NEAREST_NEIGHBOR: (
        "distance to the tenth nearest training picture, features of length 1 (Sun et al., ICML"
        " 2022)"
    ),
}

Figures = dict[str, Any]


def with_refusals(card: str, described: ModelDescription, metrics: Figures) -> str:
    """Return the card with what is known of refusals; what it said of them before is replaced.

    Version and device UID are those of the description.
    """
    card = re.sub(rf"^{HEADING}\n.*?(?=^## |\Z)", "", card, flags=re.MULTILINE | re.DOTALL)
    card = re.sub(
        rf"^(# .*: `{re.escape(described.name)}`) \S+$",
        rf"\g<1> {described.version}",
        card,
        flags=re.MULTILINE,
    )
    card = re.sub(r"(\| device UID \| `)[0-9.]+`", rf"\g<1>{described.device_uid}`", card)
    section = _section(described, metrics)
    if BEFORE in card:
        return card.replace(BEFORE, f"{section}\n{BEFORE}", 1)
    return f"{card.rstrip()}\n\n{section}"


def _section(described: ModelDescription, metrics: Figures) -> str:
    parts = [HEADING]
    if described.domain is None:
        parts.append("It judges whatever its rule gives it: no domain has been fitted.")
    else:
        parts.append(_method(described.domain))
        parts.append(_methods(metrics.get("domain_methods", {})))
    parts.append(
        "Before that, pictures that are too small, blank, overexposed or saturated are refused with"
        " that reason. A refusal is a result: the case goes to the doctor with the reason."
    )
    if described.applies_to.view_position is not None:
        parts.append(
            "A lateral view is refused by View Position where the sender states it. Whether the"
            " pixels of a lateral view alone would be refused was not tested."
        )
    if metrics.get("phantoms_judged"):
        parts.append(
            "The drawn phantom, by which an installation is tried, is judged although it is no"
            " patient and the model has not learned from it: its features are one more mean to be"
            " near to. What the model says of it means nothing."
        )
    parts.append(_measured(metrics.get("refusal")))
    return "\n\n".join(part for part in parts if part) + "\n"


def _method(domain: DomainCheck) -> str:
    return (
        f"A picture is judged only where it is of the kind that the model learned from:"
        f" {CITATIONS[domain.method]}, over the features of the layer `{domain.layer}`, at most"
        f" {domain.threshold:.3f}. The threshold keeps 98 % of pictures of the train split whose"
        " group was held out; no picture of another kind and no validation picture has set it."
    )


def _methods(compared: Figures) -> str:
    if not compared:
        return ""
    lines = [
        "| method and layer | validation refused | other kinds refused | room |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {each['inside_refused']:.1%} | {each['outside_refused']:.1%} |"
        f" {each['nearest_outside']:.2f} |"
        for name, each in compared.items()
    ]
    return (
        "Methods and layers were compared on pictures of other kinds (train splits of the other"
        " sets). Room is the distance that 99 % of those exceed, as a multiple of the"
        " threshold.\n\n" + "\n".join(lines)
    )


def _measured(refusal: Figures | None) -> str:
    if refusal is None:
        return ""
    inside, outside, dicom = (refusal[key] for key in ("in_domain", "wrong_domain", "dicom"))
    sets = ", ".join(
        f"{name} {each['refused']} of {each['n']}" for name, each in outside["sets"].items()
    )
    return (
        f"Measured: of {inside['n']} validation pictures of its kind {inside['refused']} are"
        f" refused ({inside['share']:.1%}, 95 % interval {inside['lower']:.1%} to"
        f" {inside['upper']:.1%}); of {outside['n']} pictures of other kinds {outside['refused']}"
        f" ({outside['share']:.1%}; {sets}). Of {dicom['out_of_domain']} DICOM files that are not"
        f" known to be of its kind {dicom['refused']} are refused or cannot be read; of the"
        f" {dicom['decodable']} that can be decoded {dicom['refused_by_pixels']} are refused by"
        " their pixels alone, whatever their attributes say."
    )
