"""Every command of the README, run as it stands there but for ports and folders."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydicom.data import get_testdata_file

from tests.architecture.test_texts import shell_lines
from tests.conftest import CHECKOUT
from tests.peers.processes import LOOPBACK, ServerProcess, free_port, wait_until

COMMANDS = shell_lines(CHECKOUT / "README.md")
RUN_BY_CI = {"make check", "make test"}
ON_THE_RUNNING_SYSTEM = [line for line in COMMANDS if line.startswith(".venv/bin/countersign ")]


def run(line: str, environment: dict[str, str]) -> str:
    """Run a line as a shell does and return what it printed; it must succeed."""
    answer = subprocess.run(
        ["bash", "-euc", line],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, f"{line}\n{answer.stdout}\n{answer.stderr}"
    return answer.stdout


@pytest.fixture
def environment() -> dict[str, str]:
    # Settings of this machine, and the make that runs the tests, must not show through.
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COUNTERSIGN_", "MAKE", "MFLAGS"))
    }


@pytest.fixture
def dicom_port(tmp_path: Path, environment: dict[str, str]) -> Iterator[int]:
    """Run ``make up`` with its data in a folder of the test's, and give its DICOM port."""
    dicom_port, http_port = free_port(), free_port()
    up = ServerProcess(
        ["make", "-C", str(CHECKOUT), "up", f"DATA={tmp_path / 'data'}"],
        log=tmp_path / "up.log",
        environment={
            **environment,
            "COUNTERSIGN_DICOM_PORT": str(dicom_port),
            "COUNTERSIGN_HTTP_PORT": str(http_port),
            "COUNTERSIGN_DICOMWEB_PORT": str(free_port()),
        },
    )
    up.start()

    def is_ready() -> bool:
        try:
            answer = httpx.get(f"http://{LOOPBACK}:{http_port}/health/ready", trust_env=False)
        except httpx.TransportError:
            return False
        return answer.is_success

    up.wait_until_ready(is_ready, timeout_s=180)
    yield dicom_port
    up.stop()
    wait_until(lambda: not up.is_running(), what="the end of make up")


def test_every_command_is_run_somewhere() -> None:
    assert {*COMMANDS} == {"make demo", "make up", *RUN_BY_CI, *ON_THE_RUNNING_SYSTEM}
    assert ON_THE_RUNNING_SYSTEM


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_make_demo_ends_by_itself_and_shows_where_the_report_is(
    environment: dict[str, str],
) -> None:
    shown = run("make demo", environment)

    assert "report.pdf" in shown
    assert (CHECKOUT / "demo" / "report.pdf").read_bytes().startswith(b"%PDF-")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_commands_of_the_readme_work_beside_make_up(
    dicom_port: int, tmp_path: Path, environment: dict[str, str]
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    (study / "1.dcm").write_bytes(Path(get_testdata_file("CT_small.dcm")).read_bytes())
    (tmp_path / "password.txt").write_text("correct horse battery staple\n")
    here = {
        "study/*.dcm": f"{study}/*.dcm",
        "127.0.0.1:11112": f"127.0.0.1:{dicom_port}",
        "--data data": f"--data {tmp_path / 'data'}",
        "password.txt": str(tmp_path / "password.txt"),
    }

    for line in ON_THE_RUNNING_SYSTEM:
        for there, replacement in here.items():
            line = line.replace(there, replacement)  # noqa: PLW2901 - the line as it is run here
        run(line, environment)
