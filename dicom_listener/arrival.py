"""An instance that has arrived, and the rows it makes."""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import String, Table

from dicom_listener.identity import birth_date
from dicom_listener.instance_header import InstanceHeader, SharedHeader
from dicom_listener.open_associations import OpenAssociation
from dicom_listener.study_progress import Progress
from imaging_store.instances import Kept
from imaging_store.schema.ingest import instance, study


class Arrival(NamedTuple):
    """An instance whose bytes are durable."""

    header: InstanceHeader
    kept: Kept
    transfer_syntax_uid: str
    calling_ae_title: str
    called_ae_title: str
    issuer_of_patient_id: str
    """Of the instance, or else of its sender, or else of the site."""
    started: str
    at: datetime
    quiet_period: timedelta
    """Of its sender."""
    association: OpenAssociation | None = None
    """Over which it came; none where that says nothing of what is still to come."""
    rejected_studies: tuple[str, ...] = ()
    """Of whose instances it says that they are not to be used."""
    is_urgent: bool = False
    """It was sent with DIMSE priority HIGH."""


def study_row(first: Arrival, progress: Progress) -> dict[str, Any]:
    """Return the row of the study that an instance is the first of, and that has come so far."""
    return study_attributes(first) | {
        "study_instance_uid": first.header.study_instance_uid,
        "opened_at": first.at,
        "pending_since": progress.pending_since,
        "quiet_until": progress.quiet_until,
        "version": progress.version,
    }


def study_attributes(arrival: Arrival) -> dict[str, Any]:
    """Return what a study is known by where this instance is believed."""
    header = arrival.header.shared
    return _clipped(
        study,
        patient_id=header.patient_id,
        issuer_of_patient_id=arrival.issuer_of_patient_id,
        patient_name=header.patient_name,
        patient_birth_date=birth_date(header.patient_birth_date),
        patient_sex=header.patient_sex,
        patient_age=header.patient_age,
        accession_number=header.accession_number,
        study_id=header.study_id,
        study_description=header.study_description,
        referring_physician_name=header.referring_physician_name,
        institution_name=header.institution_name,
        started=arrival.started,
    )


def instance_row(arrival: Arrival, version: int, *, makes_version: bool) -> dict[str, Any]:
    """Return the row of an instance that belongs to this version of its study."""
    header, kept = arrival.header, arrival.kept
    return {
        **_of_series(
            header.shared,
            arrival.transfer_syntax_uid,
            arrival.calling_ae_title,
            arrival.called_ae_title,
        ),
        "sop_instance_uid": header.sop_instance_uid,
        "instance_number": header.instance_number,
        "view_code": header.view_code,
        "makes_version": makes_version,
        "study_version": version,
        "key": kept.key,
        "size_bytes": kept.size_bytes,
        "digest": kept.digest,
        "received_at": arrival.at,
        "urgent": arrival.is_urgent,
    }


@lru_cache(maxsize=256)
def _of_series(
    shared: SharedHeader, transfer_syntax_uid: str, calling_ae_title: str, called_ae_title: str
) -> dict[str, Any]:
    """Return the part of the row that the instances of a series nearly always share."""
    values = {name: getattr(shared, name) for name in _SHARED_NAMES}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    return (
        values
        | _clipped(
            instance,
            **texts,
            transfer_syntax_uid=transfer_syntax_uid,
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title,
        )
        | {"image_type": list(values["image_type"])}
    )


def _clipped(table: Table, **values: str) -> dict[str, Any]:
    """Return text as it fits its columns: an over-long value must not refuse an instance."""
    lengths = _LENGTHS[table.name]
    return {name: value[: lengths[name]] for name, value in values.items()}


_SHARED_NAMES = (
    *("study_instance_uid", "series_instance_uid", "sop_class_uid"),
    *("modality", "body_part_examined", "view_position", "laterality"),
    *("image_type", "number_of_frames", "series_number", "series_description", "rows", "columns"),
)
_LENGTHS = {
    table.name: {
        column.name: column.type.length for column in table.c if isinstance(column.type, String)
    }
    for table in (study, instance)
}
