"""Keep with each answer what models are watched by, and with each instance its coded view."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005_monitoring"
down_revision = "0004_digests"
branch_labels = None
depends_on = None

_UNCERTAIN = "Uncertain"
_AT_ONCE = 1000


def upgrade() -> None:
    op.add_column(
        "instance",
        sa.Column("view_code", sa.String(length=16), server_default=sa.text("''"), nullable=False),
    )
    for column in (
        sa.Column("refused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=True),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("domain_distance", sa.Float(), nullable=True),
        sa.Column("brightness", sa.Float(), nullable=True),
        sa.Column("contrast", sa.Float(), nullable=True),
    ):
        op.add_column("inference_result", column)
    op.create_index(
        "ix_inference_result_model",
        "inference_result",
        ["model_name", "model_version", "answered_at"],
        unique=False,
    )
    _fill_in()


def _fill_in() -> None:
    """Say beside each answer that is there what it found."""
    key = ("case_id", "case_version", "model_name", "model_version")
    result = sa.table(
        "inference_result",
        sa.column("case_id", sa.Uuid()),
        sa.column("case_version", sa.Integer()),
        sa.column("model_name", sa.String()),
        sa.column("model_version", sa.String()),
        sa.column("completed", sa.JSON(none_as_null=True)),
        sa.column("label", sa.String()),
        sa.column("probability", sa.Float()),
    )
    connection = op.get_bind()
    update = (
        sa.update(result)
        .where(*(result.c[name] == sa.bindparam(f"of_{name}") for name in key))
        .values(label=sa.bindparam("said"), probability=sa.bindparam("how_probable"))
    )
    columns = [result.c[name] for name in key]
    answers = (
        sa.select(result).where(result.c.completed.is_not(None)).order_by(*columns).limit(_AT_ONCE)
    )
    # Each time on from the last key: no row is looked at twice.
    rows = connection.execute(answers).all()
    while rows:
        connection.execute(update, [_found(row, key) for row in rows])
        last = [sa.literal(getattr(rows[-1], each.name), each.type) for each in columns]
        further = answers.where(sa.tuple_(*columns) > sa.tuple_(*last))
        rows = connection.execute(further).all()


def _found(row: sa.Row[Any], key: tuple[str, ...]) -> dict[str, object]:
    foremost = row.completed["probabilities"][0]
    return {
        **{f"of_{name}": getattr(row, name) for name in key},
        "said": _UNCERTAIN if row.completed["uncertain"] else foremost["label"],
        "how_probable": foremost["probability"],
    }
