"""A validator that is not ours finds nothing wrong with the phantom."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from pydicom.uid import generate_uid

from countersign.phantom import draw_chest_phantom
from tests.peers.processes import find_program, require


def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    program = require(find_program("dciodvfy"), "dciodvfy", "dicom3tools")
    file = tmp_path / "phantom.dcm"
    draw_chest_phantom(generate_uid(None), datetime.now(UTC)).save_as(
        file, enforce_file_format=True
    )

    said = subprocess.run([program, file], capture_output=True, text=True, check=False).stderr

    assert "DXImageForPresentation" in said
    assert [line for line in said.splitlines() if line.startswith("Error")] == []
