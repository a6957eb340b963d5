"""Every kind of object that we write is taken and opened by what others have written."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_sender import rejection_note
from imaging_pixels.render import render
from inference_worker import parametric_map, secondary_capture, structured_report
from inference_worker.heatmap import Heatmap, Legend, draw_heatmap
from inference_worker.parametric_map import mapped_frame
from inference_worker.result_attributes import ResultObject
from message_contracts.identifiers import derived_uid
from tests.peers.orthanc import Orthanc
from tests.peers.processes import LOOPBACK, find_program, require
from tests.readings import a_reading
from tests.synthetic_images import a_gradient, an_image, part10, read

CAM = np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7)


@dataclass(frozen=True)
class Written:
    source: Dataset
    heatmap: Heatmap
    files: dict[str, Path]
    """Kind to Part 10 file."""


def a_slice(study_instance_uid: str, modality: str) -> Dataset:
    return an_image(
        a_gradient(96, 128).astype("u2"),
        StudyInstanceUID=study_instance_uid,
        SOPInstanceUID=f"{study_instance_uid}.1",
        SeriesInstanceUID=f"{study_instance_uid}.2",
        Modality=modality,
        PatientID="P-1",
        PatientName="Müller^Jörg",
        SpecificCharacterSet="ISO_IR 100",
        FrameOfReferenceUID="2.25.9",
        ImagePositionPatient=[-30, -40, 12.5],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[0.5, 0.5],
        WindowCenter=2000,
        WindowWidth=4000,
    )


def a_rejection_of(rejected: ResultObject, study_instance_uid: str) -> bytes:
    note = rejection_note.Note(
        study_instance_uid=study_instance_uid,
        rejected=[
            rejection_note.Reference(
                rejected.series_instance_uid, rejected.sop_class_uid, rejected.sop_instance_uid
            )
        ],
        at=datetime(2026, 7, 14, tzinfo=UTC),
        time_zone=UTC,
    )
    return rejection_note.make(note, read(rejected.content))


@pytest.fixture(params=["CT", "MR"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Written:
    source = a_slice(derived_uid("study", str(tmp_path)), request.param)
    reading = a_reading(study_instance_uid=str(source.StudyInstanceUID))
    legend = Legend("Star", "Star", 0.7, "shapes 1.2.3")
    heatmap = draw_heatmap(render(source), CAM, legend)
    mapped = mapped_frame(source, 0, CAM, None)
    assert mapped is not None
    capture = secondary_capture.make(source, heatmap.capture, reading)
    contents = {
        "SC": capture.content,
        "SR": structured_report.make([source], reading, [[0]], [(source, 0)]).content,
        "PM": parametric_map.make(source, [mapped], reading, reading.model.classes[2]).content,
        "KO": a_rejection_of(capture, reading.study_instance_uid),
    }
    files = {kind: tmp_path / f"{kind}.dcm" for kind in contents}
    for kind, content in contents.items():
        files[kind].write_bytes(content)
    return Written(source, heatmap, files)


def run(program: str, package: str, *arguments: Any) -> str:
    command = [require(find_program(program), program, package), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, "TCP_NODELAY": "1"}
    )
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, output
    return output


def words_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_the_validator_finds_no_error(written: Written) -> None:
    for kind, file in written.files.items():
        program = require(find_program("dciodvfy"), "dciodvfy", "dicom3tools")
        done = subprocess.run([program, file], capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).splitlines()

        assert said, kind
        assert [line for line in said if line.startswith("Error")] == [], kind


def test_an_archive_stores_them_in_the_source_study(written: Written, orthanc: Orthanc) -> None:
    orthanc.upload(part10(written.source))

    called = ("-aec", orthanc.ae_title, LOOPBACK, orthanc.dicom_port)
    run("storescu", "dcmtk", "-R", *called, *written.files.values())

    uid = str(written.source.StudyInstanceUID)
    [_study] = orthanc.find("Study", PatientID="P-1", StudyInstanceUID=uid)
    stored = {str(read(orthanc.download(each)).SOPInstanceUID) for each in orthanc.instances(uid)}
    made = {str(read(file.read_bytes()).SOPInstanceUID) for file in written.files.values()}
    assert stored == {str(written.source.SOPInstanceUID), *made}
    series = {str(read(file.read_bytes()).SeriesInstanceUID) for file in written.files.values()}
    assert len(series) == len(written.files)
    assert str(written.source.SeriesInstanceUID) not in series


def test_dcmtk_parses_them(written: Written) -> None:
    for kind, file in written.files.items():
        dumped = run("dcmdump", "dcmtk", file)

        assert "E: " not in dumped, kind
        assert str(written.source.StudyInstanceUID) in dumped, kind


def test_dcmtk_shows_what_the_report_says(written: Written) -> None:
    said = words_of(run("dsr2html", "dcmtk", "+U8", written.files["SR"]))

    assert re.search(r'Algorithm Name[: =]+"?shapes', said)
    assert re.search(r'Algorithm Version[: =]+"?1\.2\.3', said)
    assert re.search(r"Finding[: =]+Star", said)
    assert re.search(r"Probability[: =]+0\.7\b", said)
    assert "Müller" in said


def test_dcmtk_shows_what_is_rejected(written: Written) -> None:
    said = words_of(run("dsr2html", "dcmtk", "+U8", written.files["KO"]))

    assert read(written.files["KO"].read_bytes()).SOPClassUID == KeyObjectSelectionDocumentStorage
    assert "Rejected for Quality Reasons" in said


def test_dcmtk_renders_the_capture_as_it_was_drawn(written: Written, tmp_path: Path) -> None:
    picture = tmp_path / "capture.ppm"

    run("dcm2pnm", "dcmtk", "+op", written.files["SC"], picture)

    rendered = cv2.imread(str(picture), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(rendered, written.heatmap.capture)


def test_the_map_lies_on_the_source_pixel_by_pixel(written: Written) -> None:
    source, found = written.source, read(written.files["PM"].read_bytes())

    [group] = found.PerFrameFunctionalGroupsSequence
    shared = found.SharedFunctionalGroupsSequence[0]
    assert (found.Rows, found.Columns) == (source.Rows, source.Columns)
    assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
    assert shared.PixelMeasuresSequence[0].PixelSpacing == source.PixelSpacing
    assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert found.pixel_array.dtype == np.float32
    assert found.pixel_array.max() == pytest.approx(1, abs=0.01)
