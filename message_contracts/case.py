"""The words in which a case's place is told; users, worklists and messages share them."""

from enum import StrEnum


class CaseStatus(StrEnum):
    """Where a case is."""

    RECEIVING = "RECEIVING"
    """Instances are still arriving."""
    NO_MODEL = "NO_MODEL"
    """Complete and kept; no rule sends it to a model."""
    PENDING_AI = "PENDING_AI"
    """Complete, and a model has been asked."""
    AI_FAILED = "AI_FAILED"
    """The model could not or would not read it."""
    AI_ANALYZED = "AI_ANALYZED"
    """Findings, probabilities and heat maps are there."""
    DOCTOR_VERIFIED = "DOCTOR_VERIFIED"
    """A doctor agreed, overrode, or called the study uninterpretable."""
    PHARMACIST_COMPLETED = "PHARMACIST_COMPLETED"
    """Medication notes are there."""
    REPORT_READY = "REPORT_READY"
    """An admin approved; the report is final."""
    RETURNED = "RETURNED"
    """Sent back with a coded reason; the stage says to whom."""
    REJECTED = "REJECTED"
    """Ended without a report, with a coded reason."""
    AMENDING = "AMENDING"
    """A further version is under way while the signed report stays in force."""


class Stage(StrEnum):
    """Whose signature a case waits for; the roles bear the same names."""

    DOCTOR = "doctor"
    PHARMACIST = "pharmacist"
    ADMIN = "admin"


class Release(StrEnum):
    """From which status on a destination may be sent the results of a case."""

    AI_ANALYZED = "AI_ANALYZED"
    """For a reading-room PACS that does not distribute to the ward."""
    DOCTOR_VERIFIED = "DOCTOR_VERIFIED"
    REPORT_READY = "REPORT_READY"


class DeliveryState(StrEnum):
    """How far one destination has been served."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    """It was served, and a rejection note has told it not to use what it got."""
