"""Models and what they made; ``inference_worker`` alone writes these."""

from sqlalchemy import JSON, Boolean, Column, Index, Integer, String, Table, Uuid

from service_runtime.database import UtcDateTime, metadata

model = Table(
    "model",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", String(64), primary_key=True),
    # (0018,1002) of this version; what carries it in Contributing Equipment was made by us.
    Column("device_uid", String(64), nullable=False, unique=True),
    Column("weights_sha256", String(64), nullable=False),
    # The ModelDescription, whole: rules are declared there.
    Column("description", JSON, nullable=False),
    Column("registered_at", UtcDateTime, nullable=False),
    # Since when another version of the same name is asked, unless a person has decided otherwise;
    # null of the one that is.
    Column("retired_at", UtcDateTime),
    # When its network was loaded last, on whichever worker; null while that was never tried, or
    # never went well.
    Column("loaded_at", UtcDateTime),
)
"""Every version that was ever installed; see `imaging_store.model_registry` for which is asked."""

refused_model = Table(
    "refused_model",
    metadata,
    # The folder's own name, without what is above it.
    Column("folder", String(255), primary_key=True),
    # Null where the folder does not say, or where the version can be used all the same: it was
    # registered, or loaded, from elsewhere.
    Column("model_name", String(64)),
    Column("model_version", String(64)),
    # Names the field at fault.
    Column("reason", String(500), nullable=False),
    Column("refused_at", UtcDateTime, nullable=False),
)
"""Models that cannot be used, as the worker found them that looked last."""

result_object = Table(
    "result_object",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("case_version", Integer, nullable=False),
    Column("model_name", String(64), nullable=False),
    Column("model_version", String(64), nullable=False),
    # Where the instance store keeps the Part 10 file.
    Column("key", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Index("ix_result_object_case", "case_id", "case_version"),
)

explanation = Table(
    "explanation",
    metadata,
    Column("case_id", Uuid, primary_key=True),
    Column("case_version", Integer, primary_key=True),
    Column("model_name", String(64), primary_key=True),
    Column("model_version", String(64), primary_key=True),
    # Of the class that is explained.
    Column("label", String(64), primary_key=True),
    # Of the Secondary Capture; null where it could not be made.
    Column("sop_instance_uid", String(64)),
    # Where the instance store keeps the Part 10 file, and the overlay, a PNG.
    Column("key", String(255)),
    Column("picture_key", String(255)),
    # Why there is none, and how often it was tried: asked for again, it is another message.
    Column("failure", String(500)),
    Column("failures", Integer, nullable=False),
    Column("answered_at", UtcDateTime, nullable=False),
)
"""Heat maps of classes that somebody has asked for; no result objects: none of them is sent."""

shadow_result = Table(
    "shadow_result",
    metadata,
    Column("case_id", Uuid, primary_key=True),
    Column("case_version", Integer, primary_key=True),
    Column("model_name", String(64), primary_key=True),
    Column("model_version", String(64), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    # The finding, as a case would show it; null where the model failed.
    Column("label", String(64)),
    Column("uncertain", Boolean, nullable=False),
    # Label to probability, in the order of the model's classes.
    Column("probabilities", JSON, nullable=False),
    Column("failure", String(500)),
    Column("answered_at", UtcDateTime, nullable=False),
    Index("ix_shadow_result_model", "model_name", "model_version", "answered_at"),
)
"""What models in shadow mode made of studies: for comparison alone, no part of any case."""
