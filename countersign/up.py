"""The embedded form: every service of this machine under one command and one data folder."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from countersign.services import SERVICES
from countersign.supervisor import Child, Ended, Supervisor, python_module, rotate
from imaging_store.migrations import upgrade
from service_runtime.database import Database
from service_runtime.errors import PermanentError, TransientError
from service_runtime.messaging.outbox import release_leases_of
from service_runtime.settings import EXIT_CODE as WRONG_SETTINGS
from service_runtime.settings import BrokerSettings

_LOG_KEPT_BYTES = 2 * 1024 * 1024
_READY_TIMEOUT_S = 1.0
_LOG_TAIL_LINES = 20


class UpSettings(BrokerSettings):
    """What ``up`` itself must know of the services' settings; it passes these on to them."""

    dicom_host: str = "127.0.0.1"
    dicom_port: int = Field(default=11112, ge=1, le=65535)
    ae_title: str = "COUNTERSIGN"
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=1, le=65535)
    dicomweb_host: str = "127.0.0.1"
    dicomweb_port: int = Field(default=8081, ge=1, le=65535)


class CannotStart(PermanentError):
    """Something stands in the way that a person has to move."""


def up(settings: UpSettings) -> int:
    """Run the embedded form until it is told to stop; return the exit code.

    Raises
    ------
    CannotStart
        The data folder is in use or cannot be written, a port is taken, or there is a broker.
    """
    if settings.via_broker:
        raise CannotStart(
            "COUNTERSIGN_BROKER_URL: `up` is the embedded form, which has no broker; start each "
            "service by itself (docs/architecture.md), or unset it"
        )
    with _the_only_one(settings.data_dir):
        require_free_port("DICOM_PORT", settings.dicom_host, settings.dicom_port)
        require_free_port("HTTP_PORT", settings.http_host, settings.http_port)
        require_free_port("DICOMWEB_PORT", settings.dicomweb_host, settings.dicomweb_port)
        return _Running(settings).run()


@dataclass
class _Running:
    settings: UpSettings
    ready: bool = False
    exit_code: int = 0
    asked_at: float = 0
    began_at: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """Prepare the folder, run the services, and return the exit code."""
        self.logs = self.settings.data_dir / "logs"
        self.logs.mkdir(exist_ok=True)
        environment = self._environment()
        upgrade(self.settings.database)
        self.database = Database(self.settings.database)
        try:
            self._register_models(environment)
            self.supervisor = Supervisor(
                [self._child(name) for name in SERVICES],
                environment,
                on_end=self._ended,
                on_tick=self._ask_whether_ready,
            )
            self.supervisor.run()
        finally:
            self.database.close()
        _say("stopped")
        return self.exit_code

    def _environment(self) -> dict[str, str]:
        metrics = self.settings.data_dir / "run" / "metrics"
        # What a former run counted is not what this run counts.
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir(parents=True)
        ours = {
            f"COUNTERSIGN_{name.upper()}": str(getattr(self.settings, name))
            for name in UpSettings.__annotations__
        }
        return {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            **ours,
            "COUNTERSIGN_DATA_DIR": str(self.settings.data_dir.absolute()),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics.absolute()),
        }

    def _child(self, name: str) -> Child:
        log = self.logs / f"{name}.log"
        rotate(log, _LOG_KEPT_BYTES)
        return Child(name, python_module(name), log)

    def _register_models(self, environment: dict[str, str]) -> None:
        log = self.logs / "registration.log"
        with log.open("wb") as output:
            done = subprocess.run(  # noqa: S603 - our own module
                python_module("inference_worker", "--register-only"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                check=False,
            )
        if done.returncode:
            raise CannotStart(f"the models cannot be registered:\n{_tail(log)}")

    def _ended(self, ended: Ended) -> None:
        name = ended.child.name
        if ended.exit_code == WRONG_SETTINGS and not self.ready:
            _say(f"{name} refuses its settings:\n{_tail(ended.child.log)}")
            self.exit_code = WRONG_SETTINGS
            self.supervisor.stop()
            return
        _say(f"{name} {ended.how}; starting it again. Its log: {ended.child.log}")
        if ended.token:
            # Else what it was doing would wait until its leases run out.
            with suppress(TransientError), self.database.transaction() as transaction:
                release_leases_of(transaction, ended.token)

    def _ask_whether_ready(self) -> None:
        if self.ready or time.monotonic() - self.asked_at < _READY_TIMEOUT_S / 4:
            return
        self.asked_at = time.monotonic()
        self.ready = is_ready(api_url(self.settings))
        if self.ready:
            _say(self._where())

    def _where(self) -> str:
        settings = self.settings
        seconds = time.monotonic() - self.began_at
        host = _reachable(settings.dicom_host)
        dicomweb = _url(settings.dicomweb_host, settings.dicomweb_port)
        return "\n".join(
            (
                f"every service is ready ({seconds:.0f} s)",
                f"  send studies to  {settings.ae_title}@{host}:{settings.dicom_port}",
                f"  API              {api_url(settings)}/api/v1",
                f"  DICOMweb         {dicomweb}/dicom-web",
                f"  data, logs       {settings.data_dir}, {self.logs}",
                "  stop with Ctrl-C",
            )
        )


def api_url(settings: UpSettings) -> str:
    """Return where the API is reached from this machine."""
    return _url(settings.http_host, settings.http_port)


def _url(host: str, port: int) -> str:
    host = _reachable(host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_ready(url: str) -> bool:
    """Ask the API whether every service is ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health/ready", timeout=_READY_TIMEOUT_S) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's OK
    except OSError:
        return False


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


@contextmanager
def _the_only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's lock; the kernel lets go of it however this process ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise CannotStart(
            f"COUNTERSIGN_DATA_DIR (--data): {data_dir} cannot be written: {error.strerror}"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            raise CannotStart(
                f"COUNTERSIGN_DATA_DIR (--data): another `countersign up` (process {holder}) runs "
                f"on {data_dir}; stop it, or choose another folder"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def require_free_port(setting: str, host: str, port: int) -> None:
    """Try to listen where a service will.

    Raises
    ------
    CannotStart
        Somebody else listens there, or the address is none of this machine's.
    """
    name = f"COUNTERSIGN_{setting} (--{setting.lower().replace('_', '-')})"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # Two may bind with SO_REUSEADDR; only one may listen.
            probe.listen(1)
    except OSError as error:
        raise CannotStart(
            f"{name}: cannot listen on {host}:{port}: {error.strerror or error}; choose another, "
            f"or end what uses it (`ss -ltnp 'sport = :{port}'` tells)"
        ) from error


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-_LOG_TAIL_LINES:])


def _say(text: str) -> None:
    sys.stdout.write(f"countersign: {text}\n")
    with suppress(BrokenPipeError):
        sys.stdout.flush()
