"""What a model says of itself: the content of its folder's ``model.yaml``.

Everything is declared and validated; nothing in it is evaluated as code.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from message_contracts.coding import CodedConcept
from message_contracts.identifiers import Probability, Sha256
from message_contracts.inference import UNCERTAIN

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
CodeString = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_ ]{1,16}$")]
"""VR CS (PS3.5 §6.2): upper-case letters, digits, space, underscore; at most 16 characters."""
StandardUid = Annotated[str, StringConstraints(pattern=r"^(0|[1-9]\d*)(\.(0|[1-9]\d*))+$")]
"""A UID as PS3.5 §9.1 has it, apart from its length."""


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InstanceAttributes(_Declared):
    """What a rule may ask of an instance; an absent or empty element is ``None`` or ``()``."""

    modality: str | None
    """(0008,0060)."""
    body_part_examined: str | None
    """(0018,0015)."""
    sop_class_uid: str | None
    """(0008,0016)."""
    view_position: str | None
    """(0018,5101)."""
    image_type: tuple[str, ...] = ()
    """(0008,0008), its values in order (PS3.3 §C.7.6.1.1.2)."""


class WhenAbsent(StrEnum):
    """What becomes of an instance that does not say."""

    MATCH = "match"
    REFUSE = "refuse"


class AllowedCodes(_Declared):
    """The code strings that match, compared without regard to case and outer spaces."""

    values: tuple[CodeString, ...] = Field(min_length=1)
    absent: WhenAbsent
    """Many real radiographs leave Body Part Examined and View Position out; say what then."""


class ApplicabilityRule(_Declared):
    """Which instances the model reads: every declared attribute must match."""

    modality: AllowedCodes
    body_part_examined: AllowedCodes | None = None
    """``None``: any body part, also an absent one. Likewise below."""
    view_position: AllowedCodes | None = None
    sop_class_uid: tuple[StandardUid, ...] = Field(min_length=1)
    refused_image_types: tuple[tuple[CodeString, ...], ...] = ()
    """Image Types that are never read, by their first values: ``[DERIVED, SECONDARY]`` refuses
    what another system, or this one, drew."""

    def mismatches(self, attributes: InstanceAttributes) -> tuple[str, ...]:
        """Say why an instance is not for this model, a sentence a reason; empty where it is."""
        codes = (
            ("Modality (0008,0060)", self.modality, attributes.modality),
            (
                "Body Part Examined (0018,0015)",
                self.body_part_examined,
                attributes.body_part_examined,
            ),
            ("View Position (0018,5101)", self.view_position, attributes.view_position),
        )
        reasons = [
            _mismatch(name, allowed, value) for name, allowed, value in codes if allowed is not None
        ]
        if (attributes.sop_class_uid or "").strip() not in self.sop_class_uid:
            reasons.append("SOP Class UID (0008,0016) is none of those that the model reads.")
        image_type = tuple(_normal(value) for value in attributes.image_type)
        for refused in self.refused_image_types:
            if image_type[: len(refused)] == refused:
                kind = "\\".join(refused)
                reasons.append(f"Image Type (0008,0008) is {kind}, which the model never reads.")
        return tuple(reason for reason in reasons if reason)


def _normal(value: str | None) -> str:
    return (value or "").strip().upper()


def _mismatch(name: str, allowed: AllowedCodes, value: str | None) -> str:
    given, wanted = _normal(value), " or ".join(allowed.values)
    if not given:
        return "" if allowed.absent is WhenAbsent.MATCH else f"{name} is absent; {wanted} needed."
    return "" if given in allowed.values else f"{name} is not {wanted}."


class NetworkInput(_Declared):
    """The geometry and scaling of what the network takes."""

    rows: int = Field(ge=8, le=4096)
    columns: int = Field(ge=8, le=4096)
    channels: int
    """1, or 3; a gray picture is given to three channels alike."""
    multiply: float
    add: float
    """The network is given ``pixel * multiply + add`` for an 8-bit pixel (0 is black)."""

    @model_validator(mode="after")
    def _one_or_three_channels(self) -> Self:
        if self.channels not in {1, 3}:
            raise ValueError("channels must be 1 or 3")
        return self


class ModelClass(_Declared):
    """One class, at the place where the network's output has its probability."""

    label: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
    code: CodedConcept
    description: Text
    no_abnormality: bool = False
    """True for the one class, if there is one, that says nothing was found."""


class TrainingData(_Declared):
    """What the model learned from."""

    description: Text
    license: Text
    """Under which terms the data came."""
    picture_count: int = Field(ge=1)


class ModelDescription(_Declared):
    """A model folder's ``model.yaml``."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$", max_length=16)]
    device_uid: Annotated[StandardUid, StringConstraints(max_length=64)]
    """(0018,1002) of this version: what PACS and EHR know the algorithm by."""
    intended_use: Text
    limits: tuple[Text, ...] = Field(min_length=1)
    applies_to: ApplicabilityRule
    input: NetworkInput
    classes: tuple[ModelClass, ...] = Field(min_length=2)
    uncertain_below: Probability
    """No class at or above this probability means that the finding is ``Uncertain``."""
    grad_cam_layer: Text
    """The layer of the network whose feature map the heat map explains."""
    license: Text
    """Under which terms the weights may be used."""
    training_data: TrainingData
    metrics: dict[str, float]
    """Measured figures by name; the model card says how they were measured."""
    weights: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+\.keras$")]
    """The file of the weights, in the same folder."""
    weights_sha256: Sha256

    @model_validator(mode="after")
    def _classes_can_be_told_apart(self) -> Self:
        labels = [model_class.label.casefold() for model_class in self.classes]
        if len(set(labels)) != len(labels):
            raise ValueError("classes: two have the same label")
        if UNCERTAIN.casefold() in labels:
            raise ValueError(f"classes: {UNCERTAIN} is said of a finding and cannot be a class")
        codes = [(each.code.scheme_designator, each.code.value) for each in self.classes]
        if len(set(codes)) != len(codes):
            raise ValueError("classes: two have the same code")
        if sum(model_class.no_abnormality for model_class in self.classes) > 1:
            raise ValueError("classes: no_abnormality can be said of one class only")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the network's output."""
        return tuple(model_class.label for model_class in self.classes)
