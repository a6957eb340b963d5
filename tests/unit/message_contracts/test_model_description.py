import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from message_contracts.applicability import (
    AllowedCodes,
    ApplicabilityRule,
    InstanceAttributes,
    WhenAbsent,
)
from message_contracts.model_description import ModelDescription
from tests.tiny_model import DESCRIPTION

DIGITAL_X_RAY = "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
FRONTAL = InstanceAttributes(
    modality="DX",
    body_part_examined="CHEST",
    sop_class_uid=DIGITAL_X_RAY,
    view_position="PA",
    image_type=("ORIGINAL", "PRIMARY"),
)


def described(**changes: Any) -> dict[str, Any]:
    return (
        copy.deepcopy(DESCRIPTION) | {"weights_sha256": "0" * 64, "device_uid": "2.25.1"} | changes
    )


def chest_rule() -> ApplicabilityRule:
    return ModelDescription.model_validate(described()).applies_to


def test_a_frontal_chest_radiograph_matches() -> None:
    assert chest_rule().mismatches(FRONTAL) == ()


def test_case_and_outer_spaces_do_not_matter() -> None:
    sloppy = FRONTAL.model_copy(update={"modality": "dx ", "body_part_examined": " Chest"})

    assert chest_rule().mismatches(sloppy) == ()


def test_a_radiograph_that_says_neither_body_part_nor_view_matches_where_declared() -> None:
    silent = FRONTAL.model_copy(
        update={
            "body_part_examined": None,
            "view_position": "",
            "sop_class_uid": SECONDARY_CAPTURE,
            "image_type": (),
        }
    )

    assert chest_rule().mismatches(silent) == ()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"modality": "CT"}, "Modality"),
        ({"modality": None}, "Modality"),
        ({"body_part_examined": "HAND"}, "Body Part Examined"),
        ({"view_position": "LL"}, "View Position"),
        ({"view_position": "LATERAL"}, "View Position"),
        ({"sop_class_uid": CT}, "SOP Class UID"),
        ({"sop_class_uid": None}, "SOP Class UID"),
        ({"image_type": ("DERIVED", "SECONDARY")}, "Image Type"),
        ({"image_type": ("derived", "secondary ", "OVERLAY")}, "Image Type"),
    ],
)
def test_each_mismatch_is_a_sentence_that_names_its_attribute(
    change: dict[str, Any], named: str
) -> None:
    (reason,) = chest_rule().mismatches(FRONTAL.model_copy(update=change))

    assert reason.startswith(named)
    assert reason.endswith(".")


def test_a_derived_primary_image_is_read() -> None:
    derived = FRONTAL.model_copy(update={"image_type": ("DERIVED", "PRIMARY")})

    assert chest_rule().mismatches(derived) == ()


def test_our_own_secondary_capture_is_refused_for_more_than_one_reason() -> None:
    ours = InstanceAttributes(
        modality="OT",
        body_part_examined="CHEST",
        sop_class_uid=SECONDARY_CAPTURE,
        view_position=None,
        image_type=("DERIVED", "SECONDARY"),
    )

    assert len(chest_rule().mismatches(ours)) == 2


def test_an_undeclared_attribute_is_not_asked() -> None:
    rule = ApplicabilityRule(
        modality=AllowedCodes(values=("MR",), absent=WhenAbsent.REFUSE),
        sop_class_uid=("1.2.840.10008.5.1.4.1.1.4",),
    )
    brain = InstanceAttributes(
        modality="MR",
        body_part_examined="ANYTHING",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        view_position="X",
    )

    assert rule.mismatches(brain) == ()


@given(st.text(max_size=20), st.text(max_size=20), st.lists(st.text(max_size=10), max_size=4))
def test_no_reason_repeats_what_the_instance_says(
    body_part: str, view: str, image_type: list[str]
) -> None:
    marked = InstanceAttributes(
        modality="\x00" + body_part,
        body_part_examined="\x00" + body_part,
        sop_class_uid=DIGITAL_X_RAY,
        view_position="\x00" + view,
        image_type=tuple(image_type),
    )

    reasons = chest_rule().mismatches(marked)

    assert len(reasons) >= 3
    assert not any("\x00" in reason for reason in reasons)


def test_a_description_survives_json() -> None:
    description = ModelDescription.model_validate(described())

    again = ModelDescription.model_validate_json(description.model_dump_json())

    assert again == description
    assert again.labels == ("COVID-19", "Normal", "Bacterial pneumonia", "Viral pneumonia")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("surprise", 1),
        ("name", "Chest Radiograph"),
        ("version", "one"),
        ("device_uid", "2.25.01"),
        ("device_uid", "2.25." + "1" * 61),
        ("uncertain_below", 1.2),
        ("weights", "../weights.keras"),
        ("weights_sha256", "abc"),
        ("limits", []),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refusal:
        ModelDescription.model_validate(described(**{field: value}))

    assert refusal.value.errors()[0]["loc"][0] == field


def with_class(place: int, **changes: Any) -> dict[str, Any]:
    description = described()
    description["classes"][place] = description["classes"][place] | changes
    return description


@pytest.mark.parametrize(
    ("description", "fault"),
    [
        (with_class(0, label="uncertain"), "cannot be a class"),
        (with_class(0, label="normal"), "same label"),
        (with_class(0, no_abnormality=True), "no_abnormality"),
        (with_class(0, code=DESCRIPTION["classes"][1]["code"]), "same code"),  # type: ignore[index]
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(
    description: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ValidationError, match=fault):
        ModelDescription.model_validate(description)


def test_channels_are_one_or_three() -> None:
    description = described()
    description["input"] = description["input"] | {"channels": 2}

    with pytest.raises(ValidationError, match="channels must be 1 or 3"):
        ModelDescription.model_validate(description)
