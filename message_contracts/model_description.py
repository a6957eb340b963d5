"""What a model says of itself: the content of its folder's ``model.yaml``.

Everything is declared and validated; nothing in it is evaluated as code.
"""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from message_contracts.applicability import ApplicabilityRule, Declared, StandardUid
from message_contracts.coding import CodedConcept
from message_contracts.domain_check import DomainCheck
from message_contracts.identifiers import Probability, Sha256
from message_contracts.inference import UNCERTAIN
from message_contracts.study_selection import StudySelection

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class NetworkInput(Declared):
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


class ModelClass(Declared):
    """One class, at the place where the network's output has its probability."""

    label: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
    code: CodedConcept
    description: Text
    no_abnormality: bool = False
    """True for the one class, if there is one, that says nothing was found."""
    data_name: Text | None = None
    """What data sets call it in their manifests, where that is not its label: ``mel``."""


class TrainingData(Declared):
    """What the model learned from."""

    description: Text
    license: Text
    """Under which terms the data came."""
    picture_count: int = Field(ge=1)


class ModelDescription(Declared):
    """A model folder's ``model.yaml``."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$", max_length=16)]
    device_uid: Annotated[StandardUid, StringConstraints(max_length=64)]
    """(0018,1002) of this version: what PACS and EHR know the algorithm by."""
    intended_use: Text
    limits: tuple[Text, ...] = Field(min_length=1)
    applies_to: ApplicabilityRule
    reads: StudySelection = StudySelection()
    """What it reads of all that the rule matches, and how that becomes one finding."""
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
    domain: DomainCheck | None = None
    """How pictures of another kind are known and refused; ``None``: all are judged."""

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
    def files(self) -> dict[str, Sha256]:
        """The files of the folder that the model needs beside ``model.yaml``, each its digest."""
        files = {self.weights: self.weights_sha256}
        if self.domain is not None:
            files[self.domain.file] = self.domain.sha256
        return files

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the network's output."""
        return tuple(model_class.label for model_class in self.classes)
