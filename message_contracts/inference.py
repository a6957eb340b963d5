"""What is asked of a model, and what it answers."""

from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from message_contracts.coding import CodedConcept
from message_contracts.identifiers import DicomUid, Probability, Sha256
from message_contracts.message import Message

UNCERTAIN = "Uncertain"
"""The finding's label where no class reaches the model's threshold; never a class of a model."""


class Urgency(StrEnum):
    """Which lane a request takes."""

    ROUTINE = "routine"
    URGENT = "urgent"


class ModelReference(BaseModel):
    """One version of one model."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str


class ClassProbability(BaseModel):
    """One class of the model and the probability it was given."""

    model_config = ConfigDict(frozen=True)

    label: str
    code: CodedConcept
    probability: Probability


class InputSummary(BaseModel):
    """What the network was given: of the picture in the middle of those that it was asked about.

    One picture stands for a study, so that a long series weighs no more than a single view, and so
    that what is declared of single training pictures can be compared with it.
    """

    model_config = ConfigDict(frozen=True)

    picture_count: int = Field(ge=1)
    brightness: float
    """Mean gray level, 0 to 255."""

    contrast: float
    """Standard deviation of the gray levels."""

    domain_distance: float | None = None
    """From what the model learned from, in the units of its ``domain``; none where it has none."""


class NotRead(BaseModel):
    """Instances that a model read nothing of, or not all of, for the same reason."""

    model_config = ConfigDict(frozen=True)

    reason: str = Field(min_length=1, max_length=500)
    is_refusal: bool
    """The model could have read them and would not."""

    instance_count: int = Field(ge=1)
    sop_instance_uids: tuple[DicomUid, ...] = Field(min_length=1, max_length=10)
    """(0008,0018) of the first of them."""


class InferenceRequested(Message):
    """A model is to read these instances of a study."""

    TYPE: ClassVar[str] = "inference.requested"

    case_id: UUID
    case_version: int = Field(ge=1)
    study_instance_uid: DicomUid
    model: ModelReference
    sop_instance_uids: tuple[DicomUid, ...] = Field(min_length=1)
    """(0008,0018) of the instances that the model's rule matched."""

    urgency: Urgency = Urgency.ROUTINE

    shadow: bool = False
    """The reading is recorded for comparison and nothing else: no result objects, no answer."""

    parametric_map: bool = False
    """Where the images say where they lie, the heat map is wanted as a Parametric Map too."""

    @property
    @override
    def routing_key(self) -> str:
        """The message type and the lane: ``inference.requested.urgent`` overtakes."""
        return f"{self.TYPE}.{self.urgency}"


class ExplanationRequested(Message):
    """Somebody wants to see what speaks for a class that a reading has not explained.

    The case knows nothing of it: neither its finding nor what was signed changes.
    """

    TYPE: ClassVar[str] = "explanation.requested"

    case_id: UUID
    case_version: int = Field(ge=1)
    model: ModelReference
    label: str = Field(min_length=1, max_length=64)
    """Of the class, in the model's description."""


class InferenceCompleted(Message):
    """A model has read the study; its result objects and pictures are in the store."""

    TYPE: ClassVar[str] = "inference.completed"

    case_id: UUID
    case_version: int = Field(ge=1)
    study_instance_uid: DicomUid
    model: ModelReference
    device_uid: DicomUid
    """(0018,1002) of the model version, in Contributing Equipment of all that it made."""

    weights_sha256: Sha256
    uncertain_below: Probability
    """The model's threshold: no class at or above it means ``uncertain``."""

    uncertain: bool
    probabilities: tuple[ClassProbability, ...] = Field(min_length=2)
    """Every class of the model, most probable first."""

    heatmap_sop_instance_uid: DicomUid
    """(0008,0018) of the source instance that the finding rests on before all others, and that the
    heat map explains."""

    heatmap_frame_number: int | None = Field(default=None, ge=1)
    """Which of its frames, counted from 1, where it is multi-frame."""

    result_sop_instance_uids: tuple[DicomUid, ...] = Field(min_length=1)
    """(0008,0018) of the Secondary Captures, that of the heat map first, of the Structured Report,
    and of the Parametric Map where there is one."""

    heatmap_key: str
    """Where the instance store keeps the overlay, a PNG."""

    source_key: str
    """Where the instance store keeps the rendered source, a PNG of the same size."""

    not_read: tuple[NotRead, ...] = Field(default=(), max_length=10)
    """What the finding does not rest on although the model was asked about it."""

    given: InputSummary | None = None


class InferenceFailed(Message):
    """A model could not or would not read the study."""

    TYPE: ClassVar[str] = "inference.failed"

    case_id: UUID
    case_version: int = Field(ge=1)
    study_instance_uid: DicomUid
    model: ModelReference
    reason: str = Field(min_length=1, max_length=500)
    """A sentence a person understands; it names no patient."""

    is_refusal: bool = False
    """The model could have read it and would not: it is none of its business, or too poor."""

    given: InputSummary | None = None
    """None where the network was given nothing."""
