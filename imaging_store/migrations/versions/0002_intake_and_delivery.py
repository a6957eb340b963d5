"""Lay down what intake and delivery need: peers, conflicts, procedure steps, commitments."""

from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_OID, uuid5

import sqlalchemy as sa
from alembic import op

revision = "0002_intake_and_delivery"
down_revision = "0001_pre_the_journey"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _added_columns()
    _administration()
    _delivery()
    _ingest()
    _workflow()
    _fill_in()


def _added_columns() -> None:
    op.add_column(
        "attachment",
        sa.Column("was_unanswered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "attachment",
        sa.Column(
            "error_comment", sa.String(length=64), server_default=sa.text("''"), nullable=False
        ),
    )
    op.add_column(
        "attachment",
        sa.Column(
            "transfer_syntax_uid",
            sa.String(length=64),
            server_default=sa.text("''"),
            nullable=False,
        ),
    )
    op.add_column("destination_delivery", sa.Column("rejected_at", _MOMENT, nullable=True))
    op.add_column(
        "destination_delivery",
        sa.Column("requested_before", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "duplicate_instance",
        sa.Column(
            "called_ae_title", sa.String(length=16), server_default=sa.text("''"), nullable=False
        ),
    )
    op.add_column(
        "duplicate_instance", sa.Column("difference", sa.String(length=16), nullable=True)
    )
    op.add_column("duplicate_instance", sa.Column("purged_at", _MOMENT, nullable=True))
    op.add_column("instance", sa.Column("series_number", sa.Integer(), nullable=True))
    op.add_column(
        "instance",
        sa.Column(
            "series_description", sa.String(length=64), server_default=sa.text("''"), nullable=False
        ),
    )
    op.add_column("instance", sa.Column("rows", sa.Integer(), nullable=True))
    op.add_column("instance", sa.Column("columns", sa.Integer(), nullable=True))
    op.add_column("instance", sa.Column("excluded_at", _MOMENT, nullable=True))
    op.add_column("instance", sa.Column("purged_at", _MOMENT, nullable=True))
    op.add_column(
        "quarantined_instance",
        sa.Column(
            "sop_class_uid", sa.String(length=64), server_default=sa.text("''"), nullable=False
        ),
    )
    op.add_column(
        "quarantined_instance",
        sa.Column(
            "sop_instance_uid", sa.String(length=64), server_default=sa.text("''"), nullable=False
        ),
    )
    op.add_column(
        "quarantined_instance",
        sa.Column(
            "transfer_syntax_uid",
            sa.String(length=64),
            server_default=sa.text("''"),
            nullable=False,
        ),
    )
    op.add_column(
        "quarantined_instance",
        sa.Column(
            "called_ae_title", sa.String(length=16), server_default=sa.text("''"), nullable=False
        ),
    )
    op.add_column("quarantined_instance", sa.Column("outcome", sa.String(length=16), nullable=True))
    op.add_column("quarantined_instance", sa.Column("settled_at", _MOMENT, nullable=True))
    op.add_column("study", sa.Column("quiet_until", _MOMENT, nullable=True))
    op.add_column("study", sa.Column("purged_at", _MOMENT, nullable=True))
    op.drop_index(op.f("ix_study_pending_since"), table_name="study")
    op.create_index("ix_study_quiet_until", "study", ["quiet_until"], unique=False)


def _administration() -> None:
    op.create_table(
        "application_entity",
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("networks", sa.JSON(), nullable=False),
        sa.Column("quiet_period_s", sa.Float(), nullable=True),
        sa.Column("default_issuer_of_patient_id", sa.String(length=64), nullable=True),
        sa.Column("time_zone", sa.String(length=64), nullable=True),
        sa.Column("urgency", sa.String(length=16), nullable=False),
        sa.Column("max_associations", sa.Integer(), nullable=True),
        sa.Column("commitment", sa.Boolean(), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("tls", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.Column("changed_by", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("ae_title", name=op.f("pk_application_entity")),
    )
    op.create_table(
        "destination_pause",
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("paused_at", _MOMENT, nullable=False),
        sa.Column("paused_by", sa.String(length=200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_destination_pause")),
    )
    op.create_table(
        "quarantine_decision",
        sa.Column("quarantined_instance_id", sa.String(length=64), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("decided_at", _MOMENT, nullable=False),
        sa.Column("decided_by", sa.String(length=200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "quarantined_instance_id", "decided_at", name=op.f("pk_quarantine_decision")
        ),
    )


def _delivery() -> None:
    op.create_table(
        "commitment_answer",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint(
            "transaction_uid", "sop_instance_uid", name=op.f("pk_commitment_answer")
        ),
    )
    op.create_table(
        "commitment_request",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("case_version", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uids", sa.JSON(), nullable=False),
        sa.Column("requested_at", _MOMENT, nullable=False),
        sa.Column("accepted_at", _MOMENT, nullable=True),
        sa.Column("answered_at", _MOMENT, nullable=True),
        sa.Column("settled_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitment_request")),
    )
    op.create_index(
        "ix_commitment_request_case",
        "commitment_request",
        ["case_id", "case_version"],
        unique=False,
    )
    op.create_table(
        "destination_contact",
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("succeeded_at", _MOMENT, nullable=True),
        sa.Column("failed_at", _MOMENT, nullable=True),
        sa.Column("failure", sa.String(length=500), nullable=True),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_destination_contact")),
    )
    op.create_table(
        "rejection_note",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("case_version", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_rejection_note")),
    )


def _ingest() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("requested_at", _MOMENT, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("told_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
    )
    op.create_index("ix_commitment_due_at", "commitment", ["due_at"], unique=False)
    op.create_index(
        "ix_commitment_transaction",
        "commitment",
        ["calling_ae_title", "transaction_uid"],
        unique=False,
    )
    op.create_table(
        "conflict",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("known", sa.JSON(), nullable=False),
        sa.Column("claimed", sa.JSON(), nullable=False),
        sa.Column("differing", sa.JSON(), nullable=False),
        sa.Column("holds", sa.Boolean(), nullable=False),
        sa.Column("opened_at", _MOMENT, nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=True),
        sa.Column("decided_by", sa.String(length=64), nullable=True),
        sa.Column("settled_at", _MOMENT, nullable=True),
        sa.Column("study_version", sa.Integer(), nullable=True),
        sa.Column("unsettled", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conflict")),
    )
    op.create_index("ix_conflict_study", "conflict", ["study_instance_uid"], unique=False)
    op.create_table(
        "early_conflict",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("noted_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint(
            "study_instance_uid", "sop_instance_uid", name=op.f("pk_early_conflict")
        ),
    )
    op.create_table(
        "open_association",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("process", sa.String(length=100), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_open_association")),
    )
    op.create_index(
        "ix_open_association_study", "open_association", ["study_instance_uid"], unique=False
    )
    op.create_table(
        "performed_procedure_step",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("discontinuation_reason_code", sa.String(length=16), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("sop_instance_uids", sa.JSON(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_performed_procedure_step")),
    )
    op.create_table(
        "removal",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_removal")),
    )
    op.create_table(
        "committed_instance",
        sa.Column("commitment_id", sa.Uuid(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.Column("kept_until", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["commitment_id"],
            ["commitment.id"],
            name=op.f("fk_committed_instance_commitment_id_commitment"),
        ),
        sa.PrimaryKeyConstraint(
            "commitment_id", "sop_instance_uid", name=op.f("pk_committed_instance")
        ),
    )
    op.create_index(
        "ix_committed_instance_sop_instance_uid",
        "committed_instance",
        ["sop_instance_uid"],
        unique=False,
    )
    op.create_table(
        "conflicting_instance",
        sa.Column("conflict_id", sa.Uuid(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["conflict_id"],
            ["conflict.id"],
            name=op.f("fk_conflicting_instance_conflict_id_conflict"),
        ),
        sa.PrimaryKeyConstraint(
            "conflict_id", "sop_instance_uid", "sha256", name=op.f("pk_conflicting_instance")
        ),
    )
    op.create_table(
        "step_of_study",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("step_sop_instance_uid", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["step_sop_instance_uid"],
            ["performed_procedure_step.sop_instance_uid"],
            name=op.f("fk_step_of_study_step_sop_instance_uid_performed_procedure_step"),
        ),
        sa.PrimaryKeyConstraint(
            "study_instance_uid", "step_sop_instance_uid", name=op.f("pk_step_of_study")
        ),
    )
    op.create_index(
        "ix_study_kept",
        "study",
        ["study_instance_uid"],
        unique=False,
        sqlite_where=sa.text("purged_at IS NULL"),
        postgresql_where=sa.text("purged_at IS NULL"),
    )
    op.create_index("ix_study_started", "study", ["started", "study_instance_uid"], unique=False)


def _workflow() -> None:
    op.create_table(
        "hold",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("needs_decision", sa.Boolean(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("began_at", _MOMENT, nullable=False),
        sa.Column("decided_at", _MOMENT, nullable=True),
        sa.Column("until_version", sa.Integer(), nullable=True),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_hold_case_id_cases")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
    )
    op.create_index("ix_hold_case", "hold", ["case_id"], unique=False)


def _fill_in() -> None:
    """Have what waits go on waiting: studies for quiet, cases on hold for a person."""
    study = sa.table(
        "study", sa.column("pending_since", _MOMENT), sa.column("quiet_until", _MOMENT)
    )
    # Who was sending when the services stopped may go on: the default quiet period begins anew.
    op.execute(
        sa.update(study)
        .where(study.c.pending_since.is_not(None))
        .values(quiet_until=datetime.now(UTC) + timedelta(seconds=30))
    )
    cases = sa.table(
        "cases",
        sa.column("id", sa.Uuid()),
        sa.column("on_hold", sa.Boolean()),
        sa.column("hold_reason", sa.String()),
    )
    hold = sa.table(
        "hold",
        sa.column("id", sa.Uuid()),
        sa.column("case_id", sa.Uuid()),
        sa.column("reason", sa.String()),
        sa.column("needs_decision", sa.Boolean()),
        sa.column("sop_instance_uid", sa.String()),
        sa.column("began_at", _MOMENT),
    )
    held = op.get_bind().execute(sa.select(cases).where(cases.c.on_hold)).all()
    for case in held:
        row = {
            "id": uuid5(NAMESPACE_OID, f"hold {case.id}"),
            "case_id": case.id,
            "reason": case.hold_reason or "",
            "needs_decision": False,
            "sop_instance_uid": "",
            "began_at": datetime.now(UTC),
        }
        op.execute(sa.insert(hold).values(row))
