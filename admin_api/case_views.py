"""Cases as the API shows them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from message_contracts.case import CaseStatus, DeliveryState, Stage
from message_contracts.coding import CodedConcept
from message_contracts.inference import NotRead


class Finding(BaseModel):
    """One class of a model, and the probability it was given."""

    label: str
    code: CodedConcept
    probability: float
    model: str
    version: str


class CaseSummary(BaseModel):
    """A case as worklists show it. Findings are those of the version shown."""

    id: UUID
    status: CaseStatus
    stage: Stage | None
    """Whose signature it waits for."""
    revision: int
    """Given back when signing, it makes sure that nothing has changed since."""
    version: int
    """The study version under way."""
    report_version: int | None
    """The version whose signed report is in force."""
    study_instance_uid: str
    modality: str | None
    findings: list[Finding]
    """Every class of every model that has read it, most probable first."""
    uncertain: bool
    """No class reaches the model's threshold: there is nothing to agree with."""
    failure: str | None
    """Why a model could not or would not read it."""
    refused: bool
    """It would not: the model judges it as none of its business, or too poor."""
    partly_read: bool
    """Some finding does not rest on all that its model was asked about; see its reading."""
    on_hold: bool
    hold_reason: str | None
    reason_code: str | None
    """Why it was returned or rejected."""
    delivery: dict[str, DeliveryState]
    """By destination, of the version shown."""
    opened_at: datetime
    changed_at: datetime


class CasePage(BaseModel):
    """Cases, the newest first."""

    items: list[CaseSummary]
    next: str | None
    """The cursor of the page after this one."""


class Patient(BaseModel):
    """Who was examined. Patient ID and issuer together say who it is."""

    patient_id: str
    issuer_of_patient_id: str
    name: str
    birth_date: str
    sex: str


class Study(BaseModel):
    """What was examined, and when."""

    accession_number: str
    study_id: str
    description: str
    started: str
    """ISO 8601: a date, or date, time and offset."""
    referring_physician_name: str
    institution_name: str
    instance_count: int


class ModelReading(BaseModel):
    """One model that was asked about the version shown."""

    model: str
    version: str
    requested_at: datetime
    answered_at: datetime | None
    uncertain: bool | None
    uncertain_below: float | None
    weights_sha256: str | None
    device_uid: str | None
    failure: str | None
    refused: bool
    """``failure`` says why the model would not; otherwise, why it could not."""
    not_read: list[NotRead]
    """What the finding does not rest on, with the reason for each."""


class SignatureView(BaseModel):
    """A signature of the version shown."""

    stage: Stage
    name: str
    role: str
    meaning: str
    decision: str | None
    finding: str | None
    notes: str
    signed_at: datetime
    voided_at: datetime | None
    """Since when it is no longer in force."""


class InterventionView(BaseModel):
    """A return, rejection, hold release or decision."""

    act: str
    name: str
    role: str
    reason_code: str
    notes: str
    at: datetime


class HoldView(BaseModel):
    """Why the case is on hold; it is until the last of these has ended."""

    reason: str
    conflict_id: UUID | None
    """Which conflict has to be decided; null where an admin may release the hold."""
    sop_instance_uid: str
    """Of the instance that was the reason."""
    began_at: datetime
    decided_at: datetime | None
    """Since when a decision is being carried out."""


class InstanceDelivery(BaseModel):
    """What a PACS answered to one instance."""

    sop_instance_uid: str
    status: str
    """Of the C-STORE response, such as ``0xB000``; ``0xFF00`` while there is no answer."""
    error_comment: str
    """(0000,0902) as the PACS sent it, or why nothing was sent."""
    transfer_syntax_uid: str
    """In which it was sent; empty where it was not."""
    answered_at: datetime
    committed: bool | None
    """Whether the PACS commits to keep it; none where it was not asked, or has yet to say."""
    failure_reason: str | None
    """(0008,1197), such as ``0x0112``, where it does not."""


class DeliveryView(BaseModel):
    """How far one destination has been served."""

    destination: str
    kind: str
    version: int
    state: DeliveryState
    reason: str | None
    changed_at: datetime
    waiting_for: str | None
    """Why it is ``PENDING`` still: the destination's pause, or what the last try found."""
    next_try_at: datetime | None
    instances: list[InstanceDelivery]
    """What a PACS answered to each."""


class CaseDetail(CaseSummary):
    """A case with all that a person needs who is to sign it."""

    patient: Patient | None
    study: Study | None
    readings: list[ModelReading]
    signatures: list[SignatureView]
    interventions: list[InterventionView]
    holds: list[HoldView]
    deliveries: list[DeliveryView]
    links: dict[str, str]
    """What else there is of it now, by name."""


class HistoryItem(BaseModel):
    """One row of the hash-chained history."""

    sequence: int
    case_version: int
    at: datetime
    actor: str
    """``system``, or a user's id."""
    actor_name: str | None
    trigger: str
    from_status: CaseStatus | None
    to_status: CaseStatus
    stage: Stage | None
    reason_code: str | None
    details: dict[str, Any]
    previous_sha256: str
    sha256: str


class History(BaseModel):
    """All that happened to a case, the oldest first."""

    items: list[HistoryItem]
