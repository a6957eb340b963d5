"""In what order messages were sent, whatever the machine's clock did meanwhile."""

from sqlalchemy import ColumnElement, literal_column


def sending_order(dialect: str) -> ColumnElement[object]:
    """Return what to order rows of ``message`` by: where they are, since none is ever changed."""
    return literal_column("message.rowid" if dialect == "sqlite" else "message.ctid")
