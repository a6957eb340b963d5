"""Lay down the registry of models: what was decided and refused, and what shadows have read."""

import sqlalchemy as sa
from alembic import op

revision = "0003_models"
down_revision = "0002_intake_and_delivery"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "model_decision",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("model_name", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("decided_at", _MOMENT, nullable=False),
        sa.Column("decided_by", sa.String(length=200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_model_decision")),
    )
    op.create_table(
        "refused_model",
        sa.Column("folder", sa.String(length=255), nullable=False),
        sa.Column("model_name", sa.String(length=64), nullable=True),
        sa.Column("model_version", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("refused_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("folder", name=op.f("pk_refused_model")),
    )
    op.create_table(
        "shadow_result",
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("case_version", sa.Integer(), nullable=False),
        sa.Column("model_name", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=True),
        sa.Column("uncertain", sa.Boolean(), nullable=False),
        sa.Column("probabilities", sa.JSON(), nullable=False),
        sa.Column("failure", sa.String(length=500), nullable=True),
        sa.Column("answered_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint(
            "case_id",
            "case_version",
            "model_name",
            "model_version",
            name=op.f("pk_shadow_result"),
        ),
    )
    op.create_index(
        "ix_shadow_result_model",
        "shadow_result",
        ["model_name", "model_version", "answered_at"],
        unique=False,
    )
    op.add_column(
        "study",
        sa.Column("patient_age", sa.String(length=4), server_default=sa.text("''"), nullable=False),
    )
