"""Has an instance and one that came later under its SOP Instance UID change places.

What takes the place is what is read, listed and sent; what it came after is kept beside it.
"""

from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from dicom_listener.arrival import Arrival
from imaging_store.schema.ingest import duplicate_instance, instance
from service_runtime.database import Transaction

_OF_A_KEPT_FILE = (
    *("transfer_syntax_uid", "calling_ae_title", "called_ae_title", "key"),
    *("size_bytes", "digest", "received_at", "purged_at"),
)


def exchange(transaction: Transaction, newcomer: Arrival) -> None:
    """Have a duplicate and the first instance change places; all else of the row stays."""
    connection = transaction.connection
    uid = newcomer.header.sop_instance_uid
    first, second = _both(connection, newcomer)
    if first is None or second is None:
        return
    columns = _OF_A_KEPT_FILE
    connection.execute(
        delete(duplicate_instance).where(
            duplicate_instance.c.sop_instance_uid == uid,
            duplicate_instance.c.digest == newcomer.kept.digest,
        )
    )
    connection.execute(
        update(instance)
        .where(instance.c.sop_instance_uid == uid)
        .values(
            {name: getattr(second, name) for name in columns}
            # What was left out for its patient has been put right.
            | {"excluded_at": None, "makes_version": newcomer.header.shared.is_image}
        )
    )
    _keep_beside(transaction, first, str(second.difference))


def put_aside(transaction: Transaction, newcomer: Arrival) -> bool:
    """Make the first instance a duplicate, so that the newcomer can be entered in its place.

    Return whether a model may have read either.
    """
    connection = transaction.connection
    uid = newcomer.header.sop_instance_uid
    first, second = _both(connection, newcomer)
    if first is None or second is None:
        return False
    connection.execute(
        delete(duplicate_instance).where(
            duplicate_instance.c.sop_instance_uid == uid,
            duplicate_instance.c.digest == newcomer.kept.digest,
        )
    )
    connection.execute(delete(instance).where(instance.c.sop_instance_uid == uid))
    _keep_beside(transaction, first, str(second.difference))
    return first.makes_version or newcomer.header.shared.is_image


def _both(connection: Connection, newcomer: Arrival) -> tuple[Row[Any] | None, Row[Any] | None]:
    uid = newcomer.header.sop_instance_uid
    return (
        connection.execute(select(instance).where(instance.c.sop_instance_uid == uid)).first(),
        connection.execute(
            select(duplicate_instance).where(
                duplicate_instance.c.sop_instance_uid == uid,
                duplicate_instance.c.digest == newcomer.kept.digest,
            )
        ).first(),
    )


def _keep_beside(transaction: Transaction, first: Row[Any], difference: str) -> None:
    values = {name: getattr(first, name) for name in _OF_A_KEPT_FILE}
    transaction.connection.execute(
        transaction.database.insert_new(duplicate_instance),
        {
            **values,
            "sop_instance_uid": first.sop_instance_uid,
            "study_instance_uid": first.study_instance_uid,
            "difference": difference,
        },
    )
