"""Call the digests of data sets so: they are XXH3-128 from now on, and SHA-256 of what was kept."""

from alembic import op

revision = "0004_digests"
down_revision = "0003_models"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("instance", "duplicate_instance", "conflict", "conflicting_instance"):
        op.execute(f"ALTER TABLE {table} RENAME COLUMN sha256 TO digest")
