"""Note when a model's network was loaded last."""

import sqlalchemy as sa
from alembic import op

revision = "0008_loaded_models"
down_revision = "0007_explanations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model", sa.Column("loaded_at", sa.DateTime(timezone=True), nullable=True))
