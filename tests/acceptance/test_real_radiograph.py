"""A real radiograph, the shipped model, one command, and the flags that its help lists."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from typing_extensions import override

from tests.acceptance.people import Team
from tests.acceptance.system import EmbeddedSystem, Surroundings
from tests.peers.processes import LOOPBACK, find_program, free_port, require, wait_until

CHECKOUT = Path(__file__).parents[2]
CONCLUSION = "No acute cardiopulmonary finding"


class SystemFromFlags(EmbeddedSystem):
    """``countersign up`` with flags only: no EHR, no archive, the models that are shipped."""

    def __init__(self) -> None:
        nowhere = Surroundings(CHECKOUT / "models", "", "NOBODY", free_port())
        super().__init__(nowhere)
        self.environment = {
            key: value for key, value in self.environment.items() if "COUNTERSIGN" not in key
        }
        self.processes = [
            self.command(
                *("up", "--data", str(self.data_dir), "--ae-title", "FLAGS"),
                *("--dicom-port", str(self.dicom_port), "--http-port", str(self.http_port)),
                *("--dicomweb-port", str(self.dicomweb_port), "--quiet-period-s", "1"),
                name="up",
            )
        ]

    @override
    def start(self) -> None:
        super().start()
        # For the commands that tests run beside it.
        self.environment["COUNTERSIGN_DATA_DIR"] = str(self.data_dir)


@pytest.fixture(scope="module")
def flagged() -> Iterator[SystemFromFlags]:
    with SystemFromFlags() as system:
        yield system


def report_in(folder: Path) -> dict[str, Any]:
    """Return the DiagnosticReport of the only Bundle in the outbox folder."""

    def bundle() -> list[Path]:
        return list(folder.glob("*.json"))

    [file] = wait_until(bundle, what="a Bundle in the outbox folder")
    resources = [entry["resource"] for entry in json.loads(file.read_text())["entry"]]
    [report] = [each for each in resources if each["resourceType"] == "DiagnosticReport"]
    return dict(report)


def test_a_real_radiograph_sent_by_storescu_becomes_a_final_report(
    flagged: SystemFromFlags, test_data: Path, tmp_path: Path
) -> None:
    storescu = require(find_program("storescu"), "storescu", "dcmtk")
    radiograph = test_data / "dicom" / "dx_chest_nih_no_finding_implicit.dcm"
    study = str(pydicom.dcmread(radiograph, stop_before_pixels=True).StudyInstanceUID)
    team = Team(flagged)

    subprocess.run(
        [storescu, "-aec", "FLAGS", LOOPBACK, str(flagged.dicom_port), radiograph],
        check=True,
        env={**os.environ, "TCP_NODELAY": "1"},
        timeout=60,
    )

    case = team.doctor.wait_for_status(study, "AI_ANALYZED")
    assert {finding["model"] for finding in case["findings"]} == {"chest-radiograph"}
    verified = team.doctor.sign(
        case["id"],
        "doctor-verification",
        decision="override",
        finding=CONCLUSION,
        notes="Read beside the model.",
    )
    assert verified.raise_for_status().json()["status"] == "DOCTOR_VERIFIED"
    team.pharmacist.sign(case["id"], "pharmacist-review", notes="None.").raise_for_status()
    assert team.admin.sign(case["id"], "approval").json()["status"] == "REPORT_READY"
    report = report_in(flagged.data_dir / "ehr-outbox")
    assert report["status"] == "final"
    assert report["conclusion"].startswith(CONCLUSION)
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(base64.b64decode(report["presentedForm"][0]["data"]))
    text = subprocess.run(
        ["pdftotext", pdf, "-"], capture_output=True, text=True, check=True
    ).stdout
    assert CONCLUSION in text
    images = subprocess.run(
        ["pdfimages", "-list", pdf], capture_output=True, text=True, check=True
    ).stdout
    assert images.count(" image ") >= 2


def test_the_audit_of_what_was_done_verifies(flagged: SystemFromFlags) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "countersign", "audit", "verify", "--data", flagged.data_dir],
        env=flagged.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_it_listens_on_loopback_unless_told_otherwise(flagged: SystemFromFlags) -> None:
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]

    ours = [
        address
        for address in listening
        if int(address.rpartition(":")[2], 16) in {flagged.dicom_port, flagged.http_port}
    ]

    assert len(ours) == 2
    assert all(address.startswith("0100007F:") for address in ours)
