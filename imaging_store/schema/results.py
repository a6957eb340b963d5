"""Models and what they made; ``inference_worker`` alone writes these."""

from sqlalchemy import JSON, Column, Index, Integer, String, Table, Uuid

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
    # Set when a newer version of the same name took its place.
    Column("retired_at", UtcDateTime),
)

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
