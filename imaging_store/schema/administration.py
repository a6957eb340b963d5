"""The people who sign; ``admin_api`` alone writes these."""

from sqlalchemy import Column, Integer, String, Table, Uuid

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
