"""Studies for acceptance tests: drawn, and each with UIDs of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from countersign.phantom import draw_chest_phantom

ACQUIRED = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


def a_chest_study(study_instance_uid: str | None = None, *, seed: int = 0) -> FileDataset:
    """Draw a frontal chest phantom; another seed is another instance of the same study."""
    study = study_instance_uid or generate_uid(None)
    phantom = draw_chest_phantom(study, ACQUIRED, seed=seed)
    if seed:
        phantom.SOPInstanceUID = generate_uid(None, [study, "exposure", str(seed)])
        phantom.file_meta.MediaStorageSOPInstanceUID = phantom.SOPInstanceUID
    phantom.PatientID = study[-16:]
    phantom.AccessionNumber = study[-12:]
    return phantom


def part10(instance: FileDataset) -> bytes:
    """Return the Part 10 file of an instance."""
    buffer = BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
