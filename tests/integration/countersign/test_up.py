"""``countersign up`` with the real services, killed and stopped in every way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.system import SERVICES, EmbeddedSystem, Surroundings
from tests.peers.processes import LOOPBACK, free_port, wait_until

STOPS_WITHIN_S = 20


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # None in it: the processes are what is tested here.
    return tmp_path_factory.mktemp("models")


def a_system(models_dir: Path) -> EmbeddedSystem:
    return EmbeddedSystem(Surroundings(models_dir, "", "ARCHIVE", free_port()))


@pytest.fixture(scope="module")
def system(models_dir: Path) -> Iterator[EmbeddedSystem]:
    with a_system(models_dir) as running:
        yield running


@pytest.fixture
def own_system(models_dir: Path) -> Iterator[EmbeddedSystem]:
    """Give a system that the test may end."""
    with a_system(models_dir) as running:
        yield running


def everybody(system: EmbeddedSystem) -> dict[str, list[int]]:
    return {service: system.pids(service) for service in SERVICES}


def run_up(system: EmbeddedSystem, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "countersign", "up"],
        env={**system.environment, **changes},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_says_where_everything_is(system: EmbeddedSystem) -> None:
    up = system.processes[0]
    wait_until(lambda: "stop with" in up.log_tail(), what="it says that it is ready")

    said = up.log_tail()

    assert f"COUNTERSIGN@{LOOPBACK}:{system.dicom_port}" in said
    assert f"{system.url}/api/v1" in said
    assert str(system.data_dir) in said


def test_one_address_answers_for_all(system: EmbeddedSystem) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert httpx.get(f"{system.url}{path}", trust_env=False).is_success, path


def test_it_listens_on_loopback_alone(system: EmbeddedSystem) -> None:
    listening = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    ports = (system.dicom_port, system.http_port, system.dicomweb_port)
    ours = {f"{port:04X}" for port in ports}

    addresses = [row[1].split(":")[0] for row in listening if row[1].split(":")[1] in ours]

    assert addresses == ["0100007F"] * 3


def test_a_second_one_on_the_same_folder_is_refused(system: EmbeddedSystem) -> None:
    ports = {
        "COUNTERSIGN_DICOM_PORT": str(free_port()),
        "COUNTERSIGN_HTTP_PORT": str(free_port()),
        "COUNTERSIGN_DICOMWEB_PORT": str(free_port()),
    }

    refused = run_up(system, **ports)

    assert refused.returncode == 1
    assert "another `countersign up`" in refused.stderr
    assert str(system.processes[0].pid) in refused.stderr
    assert system.is_ready()


@pytest.mark.parametrize("setting", ["DICOM_PORT", "HTTP_PORT", "DICOMWEB_PORT"])
def test_a_port_that_is_taken_is_told_by_its_setting(
    system: EmbeddedSystem, tmp_path: Path, setting: str
) -> None:
    changes = {
        "COUNTERSIGN_DATA_DIR": str(tmp_path / "data"),
        "COUNTERSIGN_DICOM_PORT": str(free_port()),
        "COUNTERSIGN_HTTP_PORT": str(free_port()),
        "COUNTERSIGN_DICOMWEB_PORT": str(free_port()),
    }
    with socket.create_server((LOOPBACK, 0)) as taken:
        changes[f"COUNTERSIGN_{setting}"] = str(taken.getsockname()[1])

        refused = run_up(system, **changes)

    assert refused.returncode == 1
    assert f"COUNTERSIGN_{setting}" in refused.stderr
    assert "in use" in refused.stderr


def test_a_setting_that_a_service_refuses_ends_it_by_name(
    system: EmbeddedSystem, tmp_path: Path
) -> None:
    refused = run_up(
        system,
        COUNTERSIGN_DATA_DIR=str(tmp_path / "data"),
        COUNTERSIGN_DICOM_PORT=str(free_port()),
        COUNTERSIGN_HTTP_PORT=str(free_port()),
        COUNTERSIGN_DICOMWEB_PORT=str(free_port()),
        COUNTERSIGN_QUIET_PERIOD_S="-1",
    )

    assert refused.returncode == 2
    assert "COUNTERSIGN_QUIET_PERIOD_S" in refused.stdout + refused.stderr


@pytest.mark.slow
def test_a_service_that_is_killed_comes_back(system: EmbeddedSystem) -> None:
    before = everybody(system)
    parents = {service: pids[0] for service, pids in before.items()}

    for pid in parents.values():
        os.kill(pid, signal.SIGKILL)

    def all_back() -> bool:
        now = everybody(system)
        return all(now[service] and parents[service] not in now[service] for service in SERVICES)

    wait_until(all_back, what="every service is back")
    wait_until(system.is_ready, what="every service is ready")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order(own_system: EmbeddedSystem, number: signal.Signals) -> None:
    up = own_system.processes[0]
    up.stop_signal = number
    began = time.monotonic()

    exit_code = up.stop(timeout_s=STOPS_WITHIN_S + 5)

    assert exit_code == 0
    assert time.monotonic() - began < STOPS_WITHIN_S
    assert not any(everybody(own_system).values())
    assert "countersign: stopped" in up.log_tail()


@pytest.mark.slow
def test_the_services_leave_when_it_is_killed(own_system: EmbeddedSystem) -> None:
    up = own_system.processes[0]

    up.signal(signal.SIGKILL)

    wait_until(lambda: not any(everybody(own_system).values()), what="every service has left")
