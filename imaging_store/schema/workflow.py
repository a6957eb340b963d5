"""Cases, their signatures and their history; ``workflow_engine``'s code alone writes these."""

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    Uuid,
    false,
    text,
)

from service_runtime.database import UtcDateTime, metadata

cases = Table(
    "cases",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, unique=True),
    Column("status", String(24), nullable=False),
    Column("stage", String(16)),
    Column("version", Integer, nullable=False),
    # Raised by every change: two people who act on what they saw cannot both succeed.
    Column("revision", Integer, nullable=False),
    # The version whose report is in force; null until the first is signed.
    Column("report_version", Integer),
    Column("on_hold", Boolean, nullable=False),
    Column("hold_reason", String(64)),
    Column("reason_code", String(64)),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    CheckConstraint("version >= 1", name="version_counts_from_one"),
    # The order of worklists: it does not change under whoever reads them page by page.
    Index("ix_cases_opened_at", "opened_at", "id"),
    Index("ix_cases_status_changed_at", "status", "changed_at"),
    Index("ix_cases_stage_changed_at", "stage", "changed_at"),
)

inference_result = Table(
    "inference_result",
    metadata,
    Column("case_id", Uuid, ForeignKey("cases.id"), primary_key=True),
    Column("case_version", Integer, primary_key=True),
    Column("model_name", String(64), primary_key=True),
    Column("model_version", String(64), primary_key=True),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
    # InferenceCompleted's body as it came, null until then and when the model failed.
    Column("completed", JSON(none_as_null=True)),
    Column("failure", String(500)),
    # Whether ``failure`` says why the model would not; else why it could not.
    Column("refused", Boolean, nullable=False, server_default=false()),
    # What models are watched by, of an answer: its finding and the probability of the most probable
    # class; then, also of a refusal, what InputSummary says of the picture that stands for it.
    Column("label", String(64)),
    Column("probability", Float),
    Column("domain_distance", Float),
    Column("brightness", Float),
    Column("contrast", Float),
    Index("ix_inference_result_model", "model_name", "model_version", "answered_at"),
)

signature = Table(
    "signature",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("case_id", Uuid, ForeignKey("cases.id"), nullable=False),
    Column("case_version", Integer, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("user_id", Uuid, nullable=False),
    # As printed on the report at the time: 21 CFR 11.50 wants name, time and meaning together.
    Column("printed_name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("meaning", String(200), nullable=False),
    # agree, override or uninterpretable; the doctor's alone.
    Column("decision", String(16)),
    Column("finding", Text),
    Column("notes", Text, nullable=False),
    Column("signed_at", UtcDateTime, nullable=False),
    # How the second component was given: ``password`` now.
    Column("authentication", String(32), nullable=False),
    # SHA-256 over what was signed: findings, earlier signatures and this one's own words.
    Column("content_sha256", String(64), nullable=False),
    # Set when the case was sent back or images came after it: kept, and no longer in force.
    Column("voided_at", UtcDateTime),
    Index("ix_signature_case", "case_id", "case_version", "stage"),
)

intervention = Table(
    "intervention",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("case_id", Uuid, ForeignKey("cases.id"), nullable=False),
    Column("case_version", Integer, nullable=False),
    # return, rejection, hold_release or decision.
    Column("act", String(16), nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("printed_name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("reason_code", String(64), nullable=False),
    Column("notes", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("authentication", String(32), nullable=False),
    # SHA-256 over this act's own words.
    Column("content_sha256", String(64), nullable=False),
    Index("ix_intervention_case", "case_id", "case_version"),
)
"""What people did to a case other than sign it, with their words."""

history = Table(
    "history",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("case_id", Uuid, ForeignKey("cases.id"), nullable=False),
    Column("case_version", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    # ``system`` or the user's id.
    Column("actor", String(64), nullable=False),
    Column("trigger", String(48), nullable=False),
    Column("from_status", String(24)),
    Column("to_status", String(24), nullable=False),
    Column("stage", String(16)),
    Column("reason_code", String(64)),
    # Ids, digests and codes; words stay in ``signature`` and ``intervention``: digests here.
    Column("details", JSON, nullable=False),
    Column("previous_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Index("ix_history_case", "case_id", "sequence"),
)
"""Append-only: triggers of both databases refuse to change or remove a row."""

history_head = Table(
    "history_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    CheckConstraint("id = 1", name="only_one"),
)
"""The end of the chain: one row, locked by whoever appends; it tells when the tail was cut off."""

destination_delivery = Table(
    "destination_delivery",
    metadata,
    Column("case_id", Uuid, ForeignKey("cases.id"), primary_key=True),
    Column("case_version", Integer, primary_key=True),
    Column("destination", String(64), primary_key=True),
    # PACS, EHR or PATIENT.
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(500)),
    Column("changed_at", UtcDateTime, nullable=False),
    # When a rejection note was asked for, because what went there should not have; null again
    # when the doctor agrees after all.
    Column("rejected_at", UtcDateTime),
    # How often the same was asked for before: each request is a message of its own.
    Column("requested_before", Integer, nullable=False, server_default=text("0")),
)

hold = Table(
    "hold",
    metadata,
    # The conflict's, or derived from what made it.
    Column("id", Uuid, primary_key=True),
    Column("case_id", Uuid, ForeignKey("cases.id"), nullable=False),
    Column("reason", String(64), nullable=False),
    # Whether a conflict has to be decided before it ends.
    Column("needs_decision", Boolean, nullable=False),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("began_at", UtcDateTime, nullable=False),
    # When a person decided the conflict; it ends once that has been carried out.
    Column("decided_at", UtcDateTime),
    # Carried out: the study version that it has made. The hold ends when the case takes that up;
    # what was made of earlier versions never leaves.
    Column("until_version", Integer),
    Column("ended_at", UtcDateTime),
    Index("ix_hold_case", "case_id"),
)
"""Why a case is on hold; it is until the last of them has ended."""
