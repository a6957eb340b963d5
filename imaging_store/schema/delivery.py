"""What has left; ``dicom_sender`` writes ``attachment``, ``fhir_bridge`` ``ehr_submission``."""

from sqlalchemy import JSON, Column, Integer, String, Table, Uuid, text

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
    # (0000,0902) as the peer sent it: it may name the patient, and is shown to people only.
    Column("error_comment", String(64), nullable=False, server_default=text("''")),
    # In which it was sent.
    Column("transfer_syntax_uid", String(64), nullable=False, server_default=text("''")),
    Column("answered_at", UtcDateTime, nullable=False),
)

commitment_request = Table(
    "commitment_request",
    metadata,
    # (0008,1195), derived from what is asked about.
    Column("transaction_uid", String(64), primary_key=True),
    Column("destination", String(64), nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("case_version", Integer, nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
)
"""What a PACS was asked to commit to (PS3.4 Annex J)."""

commitment_answer = Table(
    "commitment_answer",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    # (0008,1197); null where the PACS commits itself.
    Column("failure_reason", Integer),
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
