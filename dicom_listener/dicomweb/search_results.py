"""Rows as the results of a search (PS3.18 §10.6.3.3)."""

import re
from collections.abc import Mapping
from typing import Any

from dicom_listener.dicomweb.dicom_json import Json, attribute, person_name
from dicom_listener.dicomweb.search import StudyContent

_STARTED = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2}):(\d{2})(?:([+-]\d{2}):(\d{2}))?)?"
)


def study_json(row: Any, url: str) -> Json:
    """Return what is known of a study; ``url`` is the resource's."""
    day, time, offset = _moment(row.started)
    return {
        "00080005": attribute("CS", "ISO_IR 192"),
        "00080020": attribute("DA", day),
        "00080030": attribute("TM", time),
        "00080050": attribute("SH", row.accession_number),
        "00080056": attribute("CS", "ONLINE"),
        "00080080": attribute("LO", row.institution_name),
        "00080090": person_name(row.referring_physician_name),
        "00080201": attribute("SH", offset),
        "00081030": attribute("LO", row.study_description),
        "00081190": attribute("UR", url),
        "00100010": person_name(row.patient_name),
        "00100020": attribute("LO", row.patient_id),
        "00100021": attribute("LO", row.issuer_of_patient_id),
        "00100030": attribute("DA", row.patient_birth_date),
        "00100040": attribute("CS", row.patient_sex),
        "0020000D": attribute("UI", row.study_instance_uid),
        "00200010": attribute("SH", row.study_id),
    }


def content_json(content: StudyContent) -> Json:
    """Return what is counted of a study."""
    return {
        "00080061": attribute("CS", *sorted(content.modalities)),
        "00201206": attribute("IS", len(content.series)),
        "00201208": attribute("IS", content.instance_count),
    }


def series_json(row: Any, url: str) -> Json:
    """Return what is known of a series."""
    return {
        "00080005": attribute("CS", "ISO_IR 192"),
        "00080056": attribute("CS", "ONLINE"),
        "00080060": attribute("CS", row.modality),
        "0008103E": attribute("LO", row.series_description),
        "00081190": attribute("UR", url),
        "0020000D": attribute("UI", row.study_instance_uid),
        "0020000E": attribute("UI", row.series_instance_uid),
        "00200011": attribute("IS", row.series_number),
        "00201209": attribute("IS", row.instance_count),
    }


def instance_json(row: Any, url: str) -> Json:
    """Return what is known of an instance."""
    model = {
        "00080005": attribute("CS", "ISO_IR 192"),
        "00080016": attribute("UI", row.sop_class_uid),
        "00080018": attribute("UI", row.sop_instance_uid),
        "00080056": attribute("CS", "ONLINE"),
        "00080060": attribute("CS", row.modality),
        "00081190": attribute("UR", url),
        "00083002": attribute("UI", row.transfer_syntax_uid),
        "0020000D": attribute("UI", row.study_instance_uid),
        "0020000E": attribute("UI", row.series_instance_uid),
        "00200013": attribute("IS", row.instance_number),
    }
    if row.rows and row.columns:
        model |= {
            "00280008": attribute("IS", row.number_of_frames),
            "00280010": attribute("US", row.rows),
            "00280011": attribute("US", row.columns),
        }
    return model


def merged(*models: Mapping[str, Any]) -> Json:
    """Return one data set of several, in the order of tags."""
    together = {tag: value for model in models for tag, value in model.items()}
    return dict(sorted(together.items()))


def _moment(started: str) -> tuple[str, str, str]:
    """Return date, time and offset of a study's start as DICOM writes them."""
    match = _STARTED.fullmatch(started)
    if match is None:
        return "", "", ""
    year, month, day, hour, minute, second, hours, minutes = match.groups()
    time = f"{hour}{minute}{second}" if hour else ""
    return f"{year}{month}{day}", time, f"{hours}{minutes}" if hours else ""
