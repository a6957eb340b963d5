"""Studies and instances as they came; ``dicom_listener`` alone writes these."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table

from service_runtime.database import UtcDateTime, metadata

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    # The patient is (Patient ID, issuer); the issuer is the instance's, the AE's or the site's.
    Column("patient_id", String(64), nullable=False),
    Column("issuer_of_patient_id", String(64), nullable=False),
    # (0010,0010) decoded, component groups separated by "=".
    Column("patient_name", String(400), nullable=False),
    # DA and CS values as sent; empty where the source has none.
    Column("patient_birth_date", String(8), nullable=False),
    Column("patient_sex", String(16), nullable=False),
    Column("accession_number", String(64), nullable=False),
    Column("study_id", String(64), nullable=False),
    Column("study_description", String(255), nullable=False),
    Column("referring_physician_name", String(400), nullable=False),
    Column("institution_name", String(255), nullable=False),
    # ISO 8601: a date only where the source has no time, else date, time and offset.
    Column("started", String(40), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    # When the newest instance came that belongs to a version not yet announced; else null.
    Column("pending_since", UtcDateTime),
    # The last version announced; 0 while the first is arriving.
    Column("version", Integer, nullable=False),
    Index("ix_study_pending_since", "pending_since"),
    Index("ix_study_patient", "issuer_of_patient_id", "patient_id"),
)

instance = Table(
    "instance",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column(
        "study_instance_uid", String(64), ForeignKey("study.study_instance_uid"), nullable=False
    ),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("body_part_examined", String(16), nullable=False),
    Column("view_position", String(16), nullable=False),
    Column("laterality", String(16), nullable=False),
    # (0008,0008), a list of its values.
    Column("image_type", JSON, nullable=False),
    Column("instance_number", Integer),
    Column("number_of_frames", Integer, nullable=False),
    # False for what no model reads (presentation states, key objects, SR, PDF) and what we made.
    Column("makes_version", Boolean, nullable=False),
    # The study version it belongs to.
    Column("study_version", Integer, nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("called_ae_title", String(16), nullable=False),
    Column("key", String(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # Of the data set as it came, without File Meta Information.
    Column("sha256", String(64), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Index("ix_instance_study", "study_instance_uid", "series_instance_uid"),
)

duplicate_instance = Table(
    "duplicate_instance",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("key", String(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
)
"""Kept beside the first: the same SOP Instance UID with other bytes."""

quarantined_instance = Table(
    "quarantined_instance",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("reason", String(200), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("key", String(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
)
