"""What has left; ``dicom_sender`` writes ``attachment``, ``fhir_bridge`` ``ehr_submission``."""

from sqlalchemy import JSON, Column, Integer, String, Table, Uuid

from service_runtime.database import UtcDateTime, metadata

attachment = Table(
    "attachment",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("case_id", Uuid, nullable=False),
    Column("case_version", Integer, nullable=False),
    # The C-STORE response's Status (0000,0900).
    Column("status", Integer, nullable=False),
    Column("answered_at", UtcDateTime, nullable=False),
)

ehr_submission = Table(
    "ehr_submission",
    metadata,
    Column("case_id", Uuid, primary_key=True),
    Column("case_version", Integer, primary_key=True),
    # Where the instance store keeps what was rendered and what was sent.
    Column("pdf_key", String(255), nullable=False),
    Column("pdf_sha256", String(64), nullable=False),
    Column("bundle_key", String(255), nullable=False),
    # Per resource: type, status, the server's id.
    Column("outcomes", JSON, nullable=False),
    Column("rendered_at", UtcDateTime, nullable=False),
    Column("delivered_at", UtcDateTime),
)
