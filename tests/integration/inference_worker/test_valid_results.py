"""Every object that we make is valid by dicom3tools' validator, whatever it was made from."""

from __future__ import annotations

import subprocess
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage

from imaging_pixels.decode import UndecodablePixels
from imaging_pixels.render import render
from inference_worker import parametric_map, secondary_capture, structured_report
from inference_worker.heatmap import Legend, draw_heatmap
from inference_worker.result_attributes import ResultObject
from tests.peers.processes import find_program, require
from tests.readings import a_reading
from tests.synthetic_images import a_gradient, an_image

# Kept as the source has them, and perhaps reported.
KEPT_THOUGH_WRONG = ("(0x0020,0x000d)", "(0x0010,0x0020)", "(0x0008,0x0050)")

INVALID_VALUES = "Error - Dicom dataset contains invalid data values for Value Representations"


@pytest.fixture(autouse=True)
def _misspelled_keywords_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config, "INVALID_KEYWORD_BEHAVIOR", "RAISE")


def errors_of(result: ResultObject, folder: Path) -> list[str]:
    file = folder / "result.dcm"
    file.write_bytes(result.content)
    program = require(find_program("dciodvfy"), "dciodvfy", "dicom3tools")
    output = subprocess.run([program, file], capture_output=True, text=True, check=False)
    lines = (output.stdout + output.stderr).splitlines()
    assert {"SCImage", "Comprehensive3DSR", "ParametricMap"} & set(lines)
    errors = [line for line in lines if line.startswith("Error")]
    allowed = [line for line in errors if any(tag in line for tag in KEPT_THOUGH_WRONG)]
    # The validator's summary of values that break their VR says nothing beside those.
    if allowed:
        allowed += [line for line in errors if line == INVALID_VALUES]
    return [line for line in errors if line not in allowed]


def results_of(source: Dataset, picture: Any, **changes: Any) -> list[ResultObject]:
    reading = a_reading(study_instance_uid=str(source.StudyInstanceUID), **changes)
    cam = np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7)
    picture = draw_heatmap(picture, cam, Legend("Star", "Star", 0.7, "shapes 1.2.3")).capture
    results = [
        secondary_capture.make(source, picture, reading),
        structured_report.make([source], reading, [[0]]),
    ]
    mapped = parametric_map.mapped_frame(source, 0, cam, None)
    if mapped is not None:
        results.append(parametric_map.make(source, [mapped], reading, reading.model.classes[2]))
    return results


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_results_of_real_instances_are_valid(test_data: Path, tmp_path: Path) -> None:
    checked, faults = Counter[str](), {}
    for file in sorted((test_data / "dicom").rglob("*.dcm")):
        try:
            source = pydicom.dcmread(file, force=True)
            picture = render(source)
        except (UndecodablePixels, OSError):
            continue
        # Without one it is no member of a study, and is refused on receipt.
        if not source.get("StudyInstanceUID"):
            continue
        for result in results_of(source, picture):
            checked[result.sop_class_uid] += 1
            errors = errors_of(result, tmp_path)
            if errors:
                faults[f"{file.name}: {result.sop_class_uid}"] = errors

    assert faults == {}
    assert checked[SecondaryCaptureImageStorage] >= 40
    assert checked[ParametricMapStorage] >= 20


@pytest.mark.parametrize("uncertain", [True, False])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"BodyPartExamined": "CHEST", "Laterality": ""},
        {"BodyPartExamined": "KNEE", "Laterality": "R", "PatientOrientation": ["A", "F"]},
        {"PatientSex": "unknown", "PatientAge": "56", "StudyDate": "2026.01.02"},
        {"PatientIdentityRemoved": "YES"},
        {"LossyImageCompression": "01"},
        {"SOPInstanceUID": "999.01.2", "PatientID": "x" * 70, "AccessionNumber": "y" * 20},
        {"TimezoneOffsetFromUTC": "+0545", "PatientName": "Müller^Jörg=山田^太郎"},
    ],
    ids=lambda attributes: next(iter(attributes), "bare"),
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_results_of_odd_instances_are_valid(
    attributes: dict[str, Any], uncertain: bool, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = an_image(
            a_gradient().astype("u2"), SpecificCharacterSet="ISO_IR 192", **attributes
        )

    for result in results_of(source, render(source), uncertain=uncertain):
        assert errors_of(result, tmp_path) == []
