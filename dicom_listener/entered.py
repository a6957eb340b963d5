"""What follows when an arrival has been entered, from what it turned out to be."""

from collections.abc import Callable
from datetime import datetime

import structlog

from dicom_listener.arrival import Arrival
from dicom_listener.arrivals import Outcome
from dicom_listener.index import Answer
from dicom_listener.purging import put_back
from dicom_listener.quarantine import REFUSED_BY_INDEX, set_aside
from imaging_store.instances import FileInstanceStore
from service_runtime.database import Database

log = structlog.get_logger()


def is_kept(
    database: Database,
    store: FileInstanceStore,
    arrival: Arrival,
    outcome: Outcome,
    at: datetime,
) -> bool:
    """Have an arrival count as kept; return false where its bytes have just been removed.

    Raises
    ------
    DatabaseUnavailable
        It does not count as kept yet.
    """
    header, kept = arrival.header, arrival.kept
    if outcome is Outcome.OTHER_BYTES:
        log.warning(
            "instance.duplicated",
            study_instance_uid=header.study_instance_uid,
            sop_instance_uid=header.sop_instance_uid,
        )
    if outcome is not Outcome.PURGED:
        return True
    return put_back(database, store, kept.key, (header.sop_instance_uid, kept.digest), at)


def follow_up(
    database: Database,
    store: FileInstanceStore,
    now: Callable[[], datetime],
    arrival: Arrival,
    answer: Answer,
) -> None:
    """Do what follows for an arrival that was answered for before it was entered.

    What the index refuses goes to quarantine, where a person sees it.

    Raises
    ------
    TransientError
        It is not done yet.
    NotInStore, NotUnderstood
        What the index refuses cannot be put in quarantine: its file is gone, or damaged.
    """
    if isinstance(answer, Exception):
        set_aside(database, store, arrival, REFUSED_BY_INDEX, now())
    elif answer is not None and not is_kept(database, store, arrival, answer, now()):
        log.error("instance.gone", sop_instance_uid=arrival.header.sop_instance_uid)
