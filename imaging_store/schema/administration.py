"""The people who sign, and what admins decide; ``admin_api`` alone writes these."""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    Integer,
    String,
    Table,
    Text,
    Uuid,
    text,
)

from service_runtime.database import UtcDateTime, metadata

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Lower case; what a person logs in with.
    Column("email", String(254), nullable=False, unique=True),
    # As printed with a signature (21 CFR 11.50).
    Column("printed_name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    # argon2id, with its parameters.
    Column("password_hash", String(255), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    # Raised when password or role change: tokens issued before are worth nothing.
    Column("token_generation", Integer, nullable=False),
    Column("failed_attempts", Integer, nullable=False),
    Column("locked_until", UtcDateTime),
)

application_entity = Table(
    "application_entity",
    metadata,
    # The calling AE title.
    Column("ae_title", String(16), primary_key=True),
    # Addresses and networks in CIDR notation that it may call from; empty: from anywhere.
    Column("networks", JSON, nullable=False),
    # Null: the installation's.
    Column("quiet_period_s", Float),
    Column("default_issuer_of_patient_id", String(64)),
    Column("time_zone", String(64)),
    # urgent or routine.
    Column("urgency", String(16), nullable=False),
    # At one time; null: as many as the installation takes.
    Column("max_associations", Integer),
    # Whether we commit to store what it asks us to (PS3.4 Annex J).
    Column("commitment", Boolean, nullable=False),
    # Where it hears of commitments; null: only on the association it asked on.
    Column("host", String(253)),
    Column("port", Integer),
    # Whether it hears of them by DICOM TLS.
    Column("tls", Boolean, nullable=False, server_default=text("false")),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("changed_by", String(200), nullable=False),
)
"""Who may send to us; while it is empty anyone may from loopback, and nobody else."""

destination_pause = Table(
    "destination_pause",
    metadata,
    Column("destination", String(64), primary_key=True),
    Column("paused_at", UtcDateTime, nullable=False),
    Column("paused_by", String(200), nullable=False),
    Column("why", Text, nullable=False),
)
"""Destinations that nothing is sent to until a person lets it go on."""

quarantine_decision = Table(
    "quarantine_decision",
    metadata,
    Column("quarantined_instance_id", String(64), primary_key=True),
    # release or discard.
    Column("decision", String(16), nullable=False),
    Column("decided_at", UtcDateTime, primary_key=True),
    Column("decided_by", String(200), nullable=False),
    Column("why", Text, nullable=False),
)
"""What people decided about things in quarantine; ``dicom_listener`` carries it out."""

model_decision = Table(
    "model_decision",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("model_name", String(64), nullable=False),
    Column("model_version", String(64), nullable=False),
    # add, activate, shadow, retire or roll_back.
    Column("decision", String(16), nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Column("decided_by", String(200), nullable=False),
    Column("why", Text, nullable=False),
)
"""What people decided about models, in order; nothing is ever changed or removed."""
