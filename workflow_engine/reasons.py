"""The coded reasons that a person gives for an act other than a signature."""

from enum import StrEnum


class ReturnReason(StrEnum):
    """Why a case goes back to an earlier stage."""

    FINDING_QUESTIONED = "finding_questioned"
    NOTES_INCOMPLETE = "notes_incomplete"
    MEDICATION_QUESTIONED = "medication_questioned"
    CLINICAL_CONTEXT_CHANGED = "clinical_context_changed"
    SIGNED_BY_MISTAKE = "signed_by_mistake"
    OTHER = "other"


class RejectionReason(StrEnum):
    """Why a case ends without a report."""

    WRONG_PATIENT = "wrong_patient"
    WRONG_STUDY = "wrong_study"
    QUALITY_INSUFFICIENT = "quality_insufficient"
    DUPLICATE_STUDY = "duplicate_study"
    NOT_INDICATED = "not_indicated"
    READ_ELSEWHERE = "read_elsewhere"
    OTHER = "other"


class HoldReleaseReason(StrEnum):
    """Why a case on hold may go on."""

    IDENTITY_CONFIRMED = "identity_confirmed"
    IDENTITY_CORRECTED_AT_SOURCE = "identity_corrected_at_source"
    FIRST_INSTANCE_CONFIRMED = "first_instance_confirmed"
    OTHER = "other"


class DecisionReason(StrEnum):
    """Why a conflict was decided as it was."""

    IDENTITY_CONFIRMED = "identity_confirmed"
    WRONG_WORKLIST_ENTRY = "wrong_worklist_entry"
    REGISTRATION_CORRECTED = "registration_corrected"
    FIRST_INSTANCE_CONFIRMED = "first_instance_confirmed"
    NEWCOMER_CONFIRMED = "newcomer_confirmed"
    WRONG_PATIENT = "wrong_patient"
    OTHER = "other"


class CompletionRequestReason(StrEnum):
    """Why a study is taken as complete before it would be by itself."""

    ALL_HAS_ARRIVED = "all_has_arrived"
    REST_WILL_NOT_COME = "rest_will_not_come"
    CANNOT_WAIT = "cannot_wait"
    OTHER = "other"


class UrgencyReason(StrEnum):
    """Why a study is to be read before others."""

    PATIENT_IN_DANGER = "patient_in_danger"
    ORDERED_AS_URGENT = "ordered_as_urgent"
    PATIENT_WAITS = "patient_waits"
    OTHER = "other"


MEANINGS: dict[StrEnum, str] = {
    ReturnReason.FINDING_QUESTIONED: "The finding does not fit the images or the patient.",
    ReturnReason.NOTES_INCOMPLETE: "The notes lack something that the next stage needs.",
    ReturnReason.MEDICATION_QUESTIONED: "The medication notes need another look.",
    ReturnReason.CLINICAL_CONTEXT_CHANGED: "Something new is known of the patient.",
    ReturnReason.SIGNED_BY_MISTAKE: "An earlier stage was signed by mistake.",
    ReturnReason.OTHER: "Another reason; the notes say which.",
    RejectionReason.WRONG_PATIENT: "The images are of another patient.",
    RejectionReason.WRONG_STUDY: "The study is not the one that was to be read.",
    RejectionReason.QUALITY_INSUFFICIENT: "The images are not good enough to report on.",
    RejectionReason.DUPLICATE_STUDY: "The same examination is reported on under another study.",
    RejectionReason.NOT_INDICATED: "Nobody needs a report on this study.",
    RejectionReason.READ_ELSEWHERE: "The study is reported on by another system.",
    RejectionReason.OTHER: "Another reason; the notes say which.",
    HoldReleaseReason.IDENTITY_CONFIRMED: "The study is this patient's; the contradiction is not.",
    HoldReleaseReason.IDENTITY_CORRECTED_AT_SOURCE: "The sending system has been put right.",
    HoldReleaseReason.FIRST_INSTANCE_CONFIRMED: "The instance that came first is the right one.",
    HoldReleaseReason.OTHER: "Another reason; the notes say which.",
    DecisionReason.IDENTITY_CONFIRMED: "The study is this patient's; the contradiction is not.",
    DecisionReason.WRONG_WORKLIST_ENTRY: "The wrong entry of the worklist was picked.",
    DecisionReason.REGISTRATION_CORRECTED: "The registration has been corrected since.",
    DecisionReason.FIRST_INSTANCE_CONFIRMED: "The instance that came first is the right one.",
    DecisionReason.NEWCOMER_CONFIRMED: "The instance that came later is the right one.",
    DecisionReason.WRONG_PATIENT: "The images are of another patient.",
    DecisionReason.OTHER: "Another reason; the notes say which.",
    CompletionRequestReason.ALL_HAS_ARRIVED: "The sender has sent everything.",
    CompletionRequestReason.REST_WILL_NOT_COME: "What is missing will not be sent.",
    CompletionRequestReason.CANNOT_WAIT: "The report cannot wait for the rest.",
    CompletionRequestReason.OTHER: "Another reason; the notes say which.",
    UrgencyReason.PATIENT_IN_DANGER: "The patient's state does not let it wait.",
    UrgencyReason.ORDERED_AS_URGENT: "The order says so.",
    UrgencyReason.PATIENT_WAITS: "The patient, or a treatment, waits for the finding.",
    UrgencyReason.OTHER: "Another reason; the notes say which.",
}
"""What each code means, as pages show it. Equal codes of two acts mean the same."""
