"""What rules are held against on the command line, and how their verdicts are told."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from message_contracts.applicability import InstanceAttributes
from message_contracts.patient_age import age_in_years
from message_contracts.view_code import view_of
from service_runtime.errors import PermanentError

if TYPE_CHECKING:
    from workflow_engine.routing import Explanation


class NotAnInstance(PermanentError):
    """The file cannot be read as DICOM."""


_ASKED = [
    *("Modality", "BodyPartExamined", "SOPClassUID", "ViewPosition", "ImageType"),
    *("ImageLaterality", "Laterality", "SeriesDescription", "ViewCodeSequence"),
    *("PatientAge", "PatientBirthDate", "StudyDate"),
]


def attributes_of(file: Path, calling_ae_title: str | None = None) -> InstanceAttributes:
    """Read what rules ask of a DICOM file, as the listener reads it when it comes by C-STORE.

    Raises
    ------
    NotAnInstance
        It cannot be opened, or is not DICOM.
    """
    # Loaded by the commands that need it, because --help must answer at once.
    from pydicom import dcmread  # noqa: PLC0415
    from pydicom.errors import InvalidDicomError  # noqa: PLC0415

    try:
        read = dcmread(file, stop_before_pixels=True, specific_tags=_ASKED)
    except (OSError, InvalidDicomError) as error:
        why = getattr(error, "strerror", None) or "not a DICOM file"
        raise NotAnInstance(f"{file}: {why}") from error

    def text(keyword: str) -> str:
        return str(read.get(keyword) or "")

    image_type = read.get("ImageType") or ()
    views = read.get("ViewCodeSequence") or ()
    return InstanceAttributes(
        modality=text("Modality") or None,
        body_part_examined=text("BodyPartExamined") or None,
        sop_class_uid=text("SOPClassUID") or None,
        view_position=text("ViewPosition") or None,
        view_code=next(
            filter(None, (view_of(str(item.get("CodeValue") or "")) for item in views)), None
        ),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(image_type),
        laterality=text("ImageLaterality") or text("Laterality") or None,
        series_description=text("SeriesDescription") or None,
        calling_ae_title=calling_ae_title,
        patient_age_years=age_in_years(
            text("PatientAge"), text("PatientBirthDate"), text("StudyDate")
        ),
    )


def told(explained: "Explanation", *, of_study: bool) -> Iterator[str]:
    """Tell, line by line, what a model would read and why."""
    name = f"{explained.model.name}@{explained.model.version}"
    shadow = " (in shadow)" if explained.shadow else ""
    total = sum(len(each.sop_instance_uids) for each in explained.matches)
    read = sum(len(each.sop_instance_uids) for each in explained.matches if each.is_read)
    if of_study:
        yield f"{name}{shadow}: reads {read} of {total} instances"
    else:
        yield f"{name}{shadow}: {'reads it' if read else 'no'}"
    for each in explained.matches:
        if of_study:
            yield f"  {len(each.sop_instance_uids)} of {total}:"
        for verdict in each.verdicts:
            yield f"  {'fits' if verdict.fits else 'not '}  {verdict.reason}"
        for rival in each.outranked_by:
            yield f"  not   {rival.name}@{rival.version} has a higher priority and reads it."
