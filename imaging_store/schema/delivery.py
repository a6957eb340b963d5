"""What has left; ``dicom_sender`` writes ``attachment``, ``fhir_bridge`` ``ehr_submission``."""

from sqlalchemy import JSON, Boolean, Column, Index, Integer, String, Table, Uuid, text

from service_runtime.database import UtcDateTime, metadata

attachment = Table(
    "attachment",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("case_id", Uuid, nullable=False),
    Column("case_version", Integer, nullable=False),
    # The C-STORE response's Status (0000,0900); 0xFF00 from when it is sent until it is answered.
    Column("status", Integer, nullable=False),
    # Sent before without an answer: the peer may have it, whatever it has answered since.
    Column("was_unanswered", Boolean, nullable=False, server_default=text("false")),
    # (0000,0902) as the peer sent it: it may name the patient, and is shown to people only.
    Column("error_comment", String(64), nullable=False, server_default=text("''")),
    # In which it was sent.
    Column("transfer_syntax_uid", String(64), nullable=False, server_default=text("''")),
    Column("answered_at", UtcDateTime, nullable=False),
)

destination_contact = Table(
    "destination_contact",
    metadata,
    Column("destination", String(64), primary_key=True),
    # When a batch was last taken whole, and when one was not.
    Column("succeeded_at", UtcDateTime),
    Column("failed_at", UtcDateTime),
    Column("failure", String(500)),
)
"""How it went with each PACS last."""

rejection_note = Table(
    "rejection_note",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("case_version", Integer, nullable=False),
    # Where the instance store keeps the Part 10 file.
    Column("key", String(255), nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
)
"""Key Object Selections of ours that tell a PACS what is not to be used (IHE RAD TF-2, IOCM)."""

commitment_request = Table(
    "commitment_request",
    metadata,
    # (0008,1195), derived from what is asked about.
    Column("transaction_uid", String(64), primary_key=True),
    Column("destination", String(64), nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("case_version", Integer, nullable=False),
    # What it was asked about, a list.
    Column("sop_instance_uids", JSON, nullable=False),
    # Kept, before it is sent; then taken by the PACS; then reported on; then acted on by us.
    Column("requested_at", UtcDateTime, nullable=False),
    Column("accepted_at", UtcDateTime),
    Column("answered_at", UtcDateTime),
    Column("settled_at", UtcDateTime),
    Index("ix_commitment_request_case", "case_id", "case_version"),
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
