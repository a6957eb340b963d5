"""Find the dead letters of a message: whoever answers it asks how often it was replayed."""

from alembic import op

revision = "0009_dead_letters_of_a_message"
down_revision = "0008_loaded_models"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_dead_letter_message_id", "dead_letter", ["message_id"])
