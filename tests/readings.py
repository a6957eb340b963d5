"""What a model said, for tests of what is made of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from inference_worker.result_attributes import Reading
from message_contracts.applicability import AllowedCodes, ApplicabilityRule, WhenAbsent
from message_contracts.coding import CodedConcept
from message_contracts.inference import ClassProbability
from message_contracts.model_description import (
    ModelClass,
    ModelDescription,
    NetworkInput,
    TrainingData,
)

WEIGHTS_SHA256 = "5e" * 32
CLASSES = {"Round": "112001", "Square": "112002", "Star": "112003"}


def a_model(**changes: Any) -> ModelDescription:
    """Describe a model of shapes."""
    description = ModelDescription(
        name="shapes",
        version="1.2.3",
        device_uid="2.25.271828",
        intended_use="Tests.",
        limits=("Knows three shapes.",),
        applies_to=ApplicabilityRule(
            modality=AllowedCodes(values=("CR", "DX"), absent=WhenAbsent.REFUSE),
            sop_class_uid=("1.2.840.10008.5.1.4.1.1.1",),
        ),
        input=NetworkInput(rows=32, columns=32, channels=1, multiply=1 / 255, add=0),
        classes=tuple(
            ModelClass(label=label, code=a_code(label), description=label) for label in CLASSES
        ),
        uncertain_below=0.6,
        grad_cam_layer="features",
        license="Apache-2.0",
        training_data=TrainingData(description="Drawn.", license="Apache-2.0", picture_count=9),
        metrics={"accuracy": 1.0},
        weights="shapes.keras",
        weights_sha256=WEIGHTS_SHA256,
    )
    return description.model_copy(update=changes)


def a_code(label: str) -> CodedConcept:
    """Return the code of a shape."""
    return CodedConcept(value=CLASSES[label], scheme_designator="99SHAPES", meaning=label)


def a_reading(**changes: Any) -> Reading:
    """Return a certain reading of study 2.25.101."""
    values: dict[str, Any] = {
        "study_instance_uid": "2.25.101",
        "study_version": 1,
        "model": a_model(),
        "weights_sha256": WEIGHTS_SHA256,
        "requested_at": datetime(2026, 7, 14, 22, 30, 15, 250_000, tzinfo=UTC),
        "time_zone": ZoneInfo("Europe/Vienna"),
        "probabilities": tuple(
            ClassProbability(label=label, code=a_code(label), probability=probability)
            for label, probability in (("Star", 0.7), ("Round", 0.2), ("Square", 0.1))
        ),
        "uncertain": False,
    }
    return Reading(**(values | changes))
