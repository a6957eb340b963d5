"""In what order messages were sent, whatever the machine's clock did meanwhile."""

from sqlalchemy import ColumnElement, literal_column


def sending_order(dialect: str) -> ColumnElement[object]:
    """Return what to order rows of ``message`` by.

    In PostgreSQL the transaction, and within it the place: no row is ever changed.
    """
    if dialect == "sqlite":
        return literal_column("message.rowid")
    return literal_column("message.xmin::text::bigint, message.ctid")
