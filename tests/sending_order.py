"""In what order messages were sent, whatever the machine's clock did meanwhile."""

from sqlalchemy import ColumnElement, literal_column

from service_runtime.database import Database


def sending_order(database: Database) -> ColumnElement[object]:
    """Return what to order rows of ``message`` by: where they are, since none is ever changed."""
    return literal_column("message.rowid" if database.dialect == "sqlite" else "message.ctid")
