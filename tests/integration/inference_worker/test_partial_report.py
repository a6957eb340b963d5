"""What was not read stands in the report, for people and for programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import highdicom

from inference_worker.partial_reading import not_read, statement
from inference_worker.structured_report import make
from tests.peers.processes import find_program, require
from tests.readings import a_reading
from tests.synthetic_images import a_gradient, an_image, read

REMARK = statement(not_read({"2.25.1": "its pixel data is truncated"}, {}))


def test_a_report_says_what_was_not_read(tmp_path: Path) -> None:
    assert REMARK is not None
    source = an_image(a_gradient().astype("u2"))
    content = make([source], a_reading(), [[0]], remark=REMARK).content
    file = tmp_path / "SR.dcm"
    file.write_bytes(content)

    validator = require(find_program("dciodvfy"), "dciodvfy", "dicom3tools")
    validated = subprocess.run([validator, file], capture_output=True, text=True, check=False)
    printer = require(find_program("dsr2html"), "dsr2html", "dcmtk")
    printed = subprocess.run([printer, "+U8", file], capture_output=True, text=True, check=True)

    assert "Comprehensive3DSR" in validated.stderr + validated.stdout
    assert "Error" not in validated.stderr + validated.stdout
    assert REMARK in printed.stdout.replace("\n", " ")
    parsed = highdicom.sr.Comprehensive3DSR.from_dataset(read(content))
    [group] = parsed.content.get_image_measurement_groups()
    assert len(group.get_measurements()) == 3


def test_a_report_of_all_that_was_asked_for_says_nothing_of_it() -> None:
    source = an_image(a_gradient().astype("u2"))

    assert b"does not rest on all" not in make([source], a_reading(), [[0]]).content
