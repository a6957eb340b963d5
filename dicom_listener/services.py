"""The services beside Storage and Verification: each is added to a list here, and nowhere else."""

from collections.abc import Callable
from datetime import datetime, timedelta

from dicom_listener.commitment_reports import CommitmentReports
from dicom_listener.normalized import EventReceiver, NormalizedService
from dicom_listener.performed_procedure_steps import PerformedProcedureSteps
from dicom_listener.settings import ListenerSettings
from dicom_listener.storage_commitment import StorageCommitment
from imaging_store.instances import FileInstanceStore
from service_runtime.database import Database


def normalized_services(
    settings: ListenerSettings,
    database: Database,
    store: FileInstanceStore,
    now: Callable[[], datetime],
) -> list[NormalizedService]:
    """Return the services whose SCP we are."""
    days = settings.commitment_days
    period = None if days is None else timedelta(days=days)
    return [
        PerformedProcedureSteps(database, now),
        StorageCommitment(database, store, period, now),
    ]


def event_receivers(database: Database, now: Callable[[], datetime]) -> list[EventReceiver]:
    """Return the services whose SCU we are, where their SCP opens the association."""
    return [CommitmentReports(database, now)]
