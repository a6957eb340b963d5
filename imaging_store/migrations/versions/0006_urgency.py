"""Keep of each instance whether it was sent as urgent."""

import sqlalchemy as sa
from alembic import op

revision = "0006_urgency"
down_revision = "0005_monitoring"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "instance", sa.Column("urgent", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
