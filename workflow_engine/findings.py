"""What models have said of one version of a case. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from message_contracts.coding import CodedConcept
from message_contracts.inference import UNCERTAIN, InferenceCompleted, InferenceFailed
from workflow_engine.signing import digest


@dataclass(frozen=True)
class Reading:
    """One model's answer: ``completed``, or ``failure``, or neither while it is asked."""

    model_name: str
    model_version: str
    completed: InferenceCompleted | None
    failure: str | None
    refused: bool = False
    """``failure`` says why the model would not read it; otherwise, why it could not."""

    @property
    def answered(self) -> bool:
        """Whether the model has said anything."""
        return self.completed is not None or self.failure is not None


def said(body: InferenceCompleted | InferenceFailed) -> Reading:
    """Return what an answer says."""
    name, version = body.model.name, body.model.version
    if isinstance(body, InferenceCompleted):
        return Reading(name, version, completed=body, failure=None)
    return Reading(name, version, None, body.reason, refused=body.is_refusal)


@dataclass(frozen=True)
class Finding:
    """The most probable class of one model, or ``Uncertain``, which has no code."""

    label: str
    code: CodedConcept | None
    probability: float
    """Of the most probable class, also where it is below the model's threshold."""
    model_name: str
    model_version: str

    @property
    def uncertain(self) -> bool:
        """Whether no class reaches the model's threshold."""
        return self.label == UNCERTAIN


def findings_of(readings: Iterable[Reading]) -> tuple[Finding, ...]:
    """Return one finding for each model that has read the version."""
    return tuple(
        _finding(reading, reading.completed)
        for reading in readings
        if reading.completed is not None
    )


def _finding(reading: Reading, completed: InferenceCompleted) -> Finding:
    foremost = completed.probabilities[0]
    return Finding(
        label=UNCERTAIN if completed.uncertain else foremost.label,
        code=None if completed.uncertain else foremost.code,
        probability=foremost.probability,
        model_name=reading.model_name,
        model_version=reading.model_version,
    )


def agreed_label(readings: Iterable[Reading]) -> str | None:
    """Return what a doctor who agrees puts their name to; ``None`` where there is nothing."""
    labels = [each.label for each in findings_of(readings) if not each.uncertain]
    return "; ".join(dict.fromkeys(labels)) or None


def result_sop_instance_uids(readings: Iterable[Reading]) -> tuple[str, ...]:
    """Return the result objects that models have made of the version."""
    return tuple(
        uid
        for reading in readings
        if reading.completed is not None
        for uid in reading.completed.result_sop_instance_uids
    )


def findings_digest(readings: Iterable[Reading]) -> str:
    """Return the SHA-256 over all that models have said of the version; part of what is signed."""
    return digest(
        [
            {
                "model_name": reading.model_name,
                "model_version": reading.model_version,
                # As it was kept: what later releases have added is not part of it.
                "completed": reading.completed.model_dump(mode="json", exclude_unset=True)
                if reading.completed is not None
                else None,
                "failure": reading.failure,
                **({"refused": True} if reading.refused else {}),
            }
            for reading in sorted(readings, key=lambda each: (each.model_name, each.model_version))
        ]
    )
