"""A recipe for whoever brings pictures and nothing else; what only they can say is left to them."""

import re
from pathlib import Path

import cv2
import numpy as np

from inference_worker.labeled_pictures import InvalidManifest, LabeledPicture, read_picture
from message_contracts.applicability import AllowedCodes, ApplicabilityRule, WhenAbsent
from message_contracts.coding import CodedConcept
from message_contracts.model_description import ModelClass
from model_training.recipe import Architecture, FineTuning, Recipe

PRIVATE_SCHEME = "99LOCAL"
"""Schemes that begin with 99 are private (PS3.16 §8.2): such a code means nothing elsewhere."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LOOKED_AT = 24
"""Pictures that are opened to see whether the data are in color."""
LEAST_COLOR = 12
"""Gray levels between the colors of a pixel, on average, from which on it counts as colored."""

NOT_SAID = "Not said yet. Not a medical device; not for diagnosis, triage or treatment."
NORMAL_NAMES = frozenset({"normal", "no finding", "no tumor", "healthy", "negative"})
TO_FILL_IN = (
    (
        "`applies_to` in `model.yaml`: it reads Secondary Captures of Modality OT and nothing else"
        " until somebody says which modality, SOP classes and body part it is for."
    ),
    (
        f"`classes` in `model.yaml`: the codes are of the private scheme {PRIVATE_SCHEME} and mean"
        " nothing elsewhere; put codes of SNOMED CT or another terminology in their place, and say"
        " in each `description` what such a picture shows. `no_abnormality` was guessed from the"
        " names."
    ),
    "`intended_use`, `limits`, `license` and `training_data.license`: nobody has said them.",
)


def default_recipe(
    name: str, rows: tuple[LabeledPicture, ...], architecture: Architecture
) -> Recipe:
    """Return a recipe for these pictures, with placeholders that say that they are.

    Raises
    ------
    InvalidManifest
        There are fewer than two classes, or a picture cannot be read.
    """
    labels = sorted({row.label for row in rows}, key=str.casefold)
    if len(labels) < 2:  # noqa: PLR2004 -- with one there is nothing to tell apart
        raise InvalidManifest("class: at least two are needed; there is nothing to tell apart")
    normal = [label for label in labels if label.casefold() in NORMAL_NAMES]
    in_color = is_in_color(rows)
    return Recipe(
        name=model_name(name),
        version="0.1.0",
        title=name,
        warning=(
            "Not for clinical use: nobody has said what this model is for, what its pictures show"
            " and what they cannot show; its figures say only how well it tells these very"
            " pictures apart."
        ),
        intended_use=NOT_SAID,
        limits=("Not for clinical use.", f"It tells {len(labels)} classes apart and no others."),
        caveats=(
            (
                "Nobody has said yet what the data cannot show: who was left out, and what differs"
                " between the classes beside the disease (hospital, device, age)."
            ),
        ),
        applies_to=ApplicabilityRule(
            modality=AllowedCodes(values=("OT",), absent=WhenAbsent.REFUSE),
            sop_class_uid=(SECONDARY_CAPTURE,),
        ),
        classes=tuple(
            ModelClass(
                label=label,
                code=CodedConcept(
                    value=f"CLASS-{number}", scheme_designator=PRIVATE_SCHEME, meaning=label
                ),
                description=f"Pictures that the data call {label}.",
                no_abnormality=normal == [label],
            )
            for number, label in enumerate(labels, start=1)
        ),
        license="Not said yet.",
        data_description="Labeled pictures that were given; nobody has described them yet.",
        data_license=_license_of(rows),
        uncertain_target=0.9,
        fine_tuning=FineTuning(
            backbone=architecture,
            side=224,
            channels=3 if in_color else 1,
            epochs=20,
            batch=32,
            learning_rate=3e-4,
            label_smoothing=0.05,
            weight_decay=1e-4,
            augmentation="any_orientation" if in_color else "radiograph",
            patience=5,
        ),
        to_fill_in=TO_FILL_IN,
    )


def model_name(text: str) -> str:
    """Return a name as ``model.yaml`` wants it: lower case, digits, single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-") or "model"


def is_in_color(rows: tuple[LabeledPicture, ...]) -> bool:
    """Tell whether some pictures have color: a few are opened, spread over all."""
    places = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int))
    return any(_has_color(rows[place].path) for place in places)


def _has_color(path: Path) -> bool:
    small = cv2.resize(read_picture(path, 3), (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    return float(np.mean(small.max(axis=-1) - small.min(axis=-1))) >= LEAST_COLOR


def _license_of(rows: tuple[LabeledPicture, ...]) -> str:
    known = sorted({row.licence for row in rows if row.licence})
    return "; ".join(known) if known else "Not said yet."
