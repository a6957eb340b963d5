"""The product as it runs at a site, in either form, its services killed and started at will."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from typing_extensions import override

from tests.peers.processes import (
    LOOPBACK,
    Peer,
    ServerProcess,
    free_port,
    private_folder,
    wait_until,
)

SERVICES = (
    "dicom_listener",
    "dicom_listener.dicomweb",
    "inference_worker",
    "workflow_engine",
    "dicom_sender",
    "fhir_bridge",
    "admin_api",
)
AE_TITLE = "COUNTERSIGN"
READY_WITHIN_S = 180


@dataclass(frozen=True)
class Surroundings:
    """What a system is told of the world around it."""

    models_dir: Path
    fhir_url: str
    pacs_ae_title: str
    pacs_port: int
    release: str = "REPORT_READY"


class CountersignSystem(Peer):
    """All services over one data folder."""

    form: str

    def __init__(self, surroundings: Surroundings, environment: Mapping[str, str]) -> None:
        self.folder = private_folder("system")
        self.data_dir = self.folder / "data"
        self.dicom_port, self.http_port = free_port(), free_port()
        self.dicomweb_port = free_port()
        destination = {
            "name": "archive",
            "ae_title": surroundings.pacs_ae_title,
            "host": LOOPBACK,
            "port": surroundings.pacs_port,
            "release": surroundings.release,
        }
        own = {key: value for key, value in os.environ.items() if "COUNTERSIGN" not in key}
        self.environment = {
            **own,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "COUNTERSIGN_DATA_DIR": str(self.data_dir),
            "COUNTERSIGN_DICOM_PORT": str(self.dicom_port),
            "COUNTERSIGN_HTTP_PORT": str(self.http_port),
            "COUNTERSIGN_DICOMWEB_PORT": str(self.dicomweb_port),
            "COUNTERSIGN_AE_TITLE": AE_TITLE,
            "COUNTERSIGN_QUIET_PERIOD_S": "0.5",
            "COUNTERSIGN_MODELS_DIR": str(surroundings.models_dir),
            "COUNTERSIGN_FHIR_URL": surroundings.fhir_url,
            "COUNTERSIGN_PACS_DESTINATIONS": json.dumps([destination]),
            "COUNTERSIGN_TIME_ZONE": "Europe/Vienna",
            "COUNTERSIGN_INSTITUTION_NAME": "Acceptance Hospital",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **environment,
        }

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{LOOPBACK}:{self.http_port}"

    def command(self, *arguments: str, name: str = "command") -> ServerProcess:
        """Return the command line of the product with these arguments, not started."""
        return ServerProcess(
            [sys.executable, "-m", "countersign", *arguments],
            log=self.folder / f"{name}.log",
            environment=self.environment,
        )

    def is_ready(self) -> bool:
        """Ask whether every service is ready."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health/ready", trust_env=False).is_success
        return False

    def pids(self, service: str) -> list[int]:
        """Return the processes of a service that belong to this system."""
        mine = f"COUNTERSIGN_DATA_DIR={self.data_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if service.encode() in command and mine in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return sorted(found)

    @abstractmethod
    def kill_one_process_of(self, service: str, chance: random.Random) -> None:
        """Kill -9 one process of a service, and see that the service comes back."""

    def logs(self) -> dict[str, str]:
        """Return everything that was logged, by file."""
        return {
            str(path.relative_to(self.folder)): path.read_text(errors="replace")
            for path in self.folder.rglob("*.log*")
        }


class EmbeddedSystem(CountersignSystem):
    """``countersign up``: one command, SQLite, messages waiting in the database."""

    form = "embedded"

    def __init__(self, surroundings: Surroundings, **environment: str) -> None:
        super().__init__(surroundings, environment)
        self.processes = [self.command("up", "--data", str(self.data_dir), name="up")]

    @override
    def start(self) -> None:
        self.processes[0].start()
        self.processes[0].wait_until_ready(self.is_ready, timeout_s=READY_WITHIN_S)

    @override
    def kill_one_process_of(self, service: str, chance: random.Random) -> None:
        pid = chance.choice(wait_until(lambda: self.pids(service), what=service))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in self.pids(service), what=f"{service} ended")


class DistributedSystem(CountersignSystem):
    """PostgreSQL and RabbitMQ; each service a process that an orchestrator restarts."""

    form = "distributed"

    def __init__(
        self, surroundings: Surroundings, database_url: str, broker_url: str, **environment: str
    ) -> None:
        super().__init__(
            surroundings,
            {
                "COUNTERSIGN_DATABASE_URL": database_url,
                "COUNTERSIGN_BROKER_URL": broker_url,
                **environment,
            },
        )
        self.health_ports = {service: free_port() for service in SERVICES}
        self.by_name = {
            service: ServerProcess(
                [sys.executable, "-m", service],
                log=self.folder / f"{service}.log",
                environment={
                    **self.environment,
                    "COUNTERSIGN_HEALTH_PORT": str(self.health_ports[service]),
                },
            )
            for service in SERVICES
        }
        self.processes = list(self.by_name.values())

    @override
    def start(self) -> None:
        for preparation in (self.command("db", "upgrade"), self._registration()):
            preparation.start()
            wait_until(lambda task=preparation: not task.is_running(), what="preparation")
            assert preparation.returncode == 0, preparation.log_tail()
        for service in self.processes:
            service.start()
        for service in self.processes:
            name = service.command[-1]
            service.wait_until_ready(lambda n=name: self.answers(n), timeout_s=READY_WITHIN_S)

    def _registration(self) -> ServerProcess:
        return ServerProcess(
            [sys.executable, "-m", "inference_worker", "--register-only"],
            log=self.folder / "registration.log",
            environment=self.environment,
        )

    def answers(self, service: str) -> bool:
        """Ask one service whether it is ready."""
        with suppress(httpx.TransportError):
            url = f"http://{LOOPBACK}:{self.health_ports[service]}/health/ready"
            return httpx.get(url, trust_env=False).is_success
        return False

    @override
    def kill_one_process_of(self, service: str, chance: random.Random) -> None:
        pids = wait_until(lambda: self.pids(service), what=service)
        pid = chance.choice(pids)
        process = self.by_name[service]
        if pid != process.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        process.signal(signal.SIGKILL)
        wait_until(lambda: not process.is_running(), what=f"{service} ended")
        # What the dead one forked leaves by itself, and until then the port is still theirs.
        wait_until(lambda: not self.pids(service), what=f"children of {service}")
        process.start()
