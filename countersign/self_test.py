"""``countersign self-test``: can this machine run the product? A line for each question."""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from alembic.runtime.migration import MigrationContext
from pydicom.uid import generate_uid

from countersign.phantom import draw_chest_phantom
from countersign.send import Address, Outcome, echo, send, survey
from countersign.throwaway_system import AE_TITLE, LOOPBACK, running_system
from countersign.up import UpSettings, api_url, is_ready, require_free_port
from dicom_sender.settings import SenderSettings
from fhir_bridge.settings import BridgeSettings
from imaging_store.migrations import newest_revision
from inference_worker.model_folder import find_model_folders
from inference_worker.settings import WorkerSettings
from message_contracts.destination import PacsDestination
from service_runtime.database import Database
from service_runtime.errors import CountersignError
from service_runtime.settings import load

_SLOW_WRITE_MS = 50
_LEAST_FREE_GIB = 5
_PROGRAM_TIMEOUT_S = 120
_PEER_TIMEOUT_S = 10
_CALLING_AE_TITLE = "SELF_TEST"

_TENSORFLOW = "import tensorflow as t; t.reduce_sum(t.ones((8, 8))); print(t.__version__)"
_WEASYPRINT = """
from weasyprint import HTML
pdf = HTML(string='<p>Ärztin, Žižek, Ελλάδα, Ω: 12 µm</p>').write_pdf(uncompressed_pdf=True)
assert pdf.startswith(b'%PDF') and b'/FontFile' in pdf, 'no font was embedded'
print(f'{len(pdf)} bytes')
"""
_DECODERS = """
from pydicom import dcmread
from pydicom.data import get_testdata_file
names = 'JPGExtended', 'MR_small_jpeg_ls_lossless', 'JPEG2000', 'MR_small_RLE'
for name in names:
    assert dcmread(get_testdata_file(f'{name}.dcm', download=False)).pixel_array.size, name
print('JPEG, JPEG-LS, JPEG 2000, RLE')
"""


class Fault(Exception):
    """What is wrong, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


@dataclass(frozen=True)
class Question:
    """One line of the self-test: what is asked, and how."""

    name: str
    ask: Callable[[], str]
    """Returns what was found; raises `Fault`."""


def self_test(to: str | None) -> int:
    """Ask every question; return 0 where all is well."""
    settings = load(UpSettings)
    wrong = 0
    for question in _questions(settings, to):
        began = time.monotonic()
        try:
            found = question.ask()
        except Fault as fault:
            wrong += 1
            _say(f"FAILED  {question.name}: {fault}\n        remedy: {fault.remedy}")
        except (CountersignError, OSError, httpx.HTTPError) as error:
            wrong += 1
            _say(f"FAILED  {question.name}: {type(error).__name__}: {error}")
        else:
            _say(f"ok      {question.name}: {found} ({time.monotonic() - began:.1f} s)")
    _say("all is well" if not wrong else f"{wrong} failed")
    return 1 if wrong else 0


def _questions(settings: UpSettings, to: str | None) -> Iterator[Question]:
    yield Question("data folder", lambda: _data_folder(settings))
    yield Question("database", lambda: _database(settings))
    if settings.via_broker:
        yield Question("broker", lambda: _broker(settings.broker_url))
    if to is None and not settings.via_broker:
        yield Question("ports", lambda: _ports(settings))
    yield Question("decoders", lambda: _program(_DECODERS, "pip install countersign, again"))
    yield Question(
        "TensorFlow",
        lambda: _program(_TENSORFLOW, "a 64-bit CPU with AVX, and: pip install tensorflow"),
    )
    yield Question(
        "PDF and fonts",
        lambda: _program(
            _WEASYPRINT, "on Debian: apt-get install libpango-1.0-0 libpangoft2-1.0-0 fonts-dejavu"
        ),
    )
    yield Question("models", _models)
    for destination in load(SenderSettings).pacs_destinations:
        yield Question(f"PACS {destination.name}", partial(_pacs, destination))
    if fhir_url := load(BridgeSettings).fhir_url:
        yield Question("EHR", lambda: _ehr(fhir_url))
    if to is not None:
        yield Question("association", lambda: _send_phantom(Address.parse(to)))
    else:
        yield Question("a system, and a study sent to it", _whole_system)


def _data_folder(settings: UpSettings) -> str:
    folder = settings.data_dir
    remedy = f"give this user a folder on a local disk: COUNTERSIGN_DATA_DIR or --data ({folder})"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        durations_ms = [_durable_write_ms(folder) for _ in range(20)]
    except OSError as error:
        raise Fault(f"{folder} cannot be written: {error.strerror}", remedy) from error
    free_gib = shutil.disk_usage(folder).free / 2**30
    if free_gib < _LEAST_FREE_GIB:
        raise Fault(f"{free_gib:.1f} GiB free in {folder}", "make room, or take a larger disk")
    median_ms = statistics.median(durations_ms)
    if median_ms > _SLOW_WRITE_MS:
        raise Fault(f"a durable write takes {median_ms:.0f} ms in {folder}", "take a faster disk")
    return f"{folder}, {free_gib:.0f} GiB free, a durable write takes {median_ms:.1f} ms"


def _durable_write_ms(folder: Path) -> float:
    began = time.monotonic()
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".self-test-")
    try:
        os.write(descriptor, bytes(64 * 1024))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        Path(name).unlink()
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return (time.monotonic() - began) * 1000


def _database(settings: UpSettings) -> str:
    if settings.database.startswith("sqlite"):
        file = Path(settings.database.removeprefix("sqlite:///"))
        if not file.exists():
            return "none yet; `countersign up` makes it"
    database = Database(settings.database, via_relay=settings.via_broker)
    try:
        with database.reading() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
    finally:
        database.close()
    if revision != newest_revision():
        raise Fault(
            f"it is at revision {revision or 'none'}, this release needs {newest_revision()}",
            "stop the services and run: countersign db upgrade",
        )
    return f"{database.dialect}, revision {revision}"


def _broker(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    try:
        with socket.create_connection((host, port), _PEER_TIMEOUT_S):
            return f"{host}:{port} answers"
    except OSError as error:
        raise Fault(
            f"{host}:{port} does not answer: {error.strerror or error}",
            "start RabbitMQ, or correct COUNTERSIGN_BROKER_URL",
        ) from error


def _ports(settings: UpSettings) -> str:
    if is_ready(api_url(settings)):
        return f"a system runs here and is ready: {api_url(settings)}"
    try:
        require_free_port("DICOM_PORT", settings.dicom_host, settings.dicom_port)
        require_free_port("HTTP_PORT", settings.http_host, settings.http_port)
        require_free_port("DICOMWEB_PORT", settings.dicomweb_host, settings.dicomweb_port)
    except CountersignError as error:
        raise Fault(str(error), "as said; or the system that runs there is not ready") from error
    return f"{settings.dicom_port}, {settings.http_port} and {settings.dicomweb_port} are free"


def _program(code: str, remedy: str) -> str:
    """Run Python in a process of its own: what fails to load must not end the self-test."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(  # noqa: S603 - our own text
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_PROGRAM_TIMEOUT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Fault(f"no answer within {_PROGRAM_TIMEOUT_S} s", remedy) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Fault(lines[-1], remedy)
    return done.stdout.strip().splitlines()[-1]


def _models() -> str:
    folder = load(WorkerSettings).models_dir
    good, refused = find_model_folders(folder)
    if refused:
        raise Fault("; ".join(each.reason for each in refused), f"repair what is in {folder}")
    if not good:
        raise Fault(f"no model folder in {folder}", "set COUNTERSIGN_MODELS_DIR")
    return ", ".join(f"{each.description.name}@{each.description.version}" for each in good)


def _pacs(destination: PacsDestination) -> str:
    to = Address(destination.ae_title, destination.host, destination.port)
    if reason := echo(to, calling_ae_title=load(SenderSettings).ae_title):
        raise Fault(
            reason,
            "is it running, does it know our AE title, is COUNTERSIGN_PACS_DESTINATIONS right?",
        )
    return f"{to} answers to C-ECHO"


def _ehr(fhir_url: str) -> str:
    remedy = "is the FHIR server running, and is COUNTERSIGN_FHIR_URL its base?"
    try:
        answer = httpx.get(
            f"{fhir_url}/metadata",
            headers={"Accept": "application/fhir+json"},
            timeout=_PEER_TIMEOUT_S,
            follow_redirects=True,
        )
        version = str(answer.raise_for_status().json()["fhirVersion"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise Fault(f"no capability statement: {type(error).__name__}", remedy) from error
    if not version.startswith("4.0"):
        raise Fault(f"it speaks FHIR {version}, not R4 (4.0.1)", remedy)
    return f"FHIR {version}"


def _whole_system() -> str:
    with (
        tempfile.TemporaryDirectory(prefix="countersign-self-test-") as folder,
        running_system(Path(folder) / "data") as system,
    ):
        return _send_phantom(Address(AE_TITLE, LOOPBACK, system.dicom_port))


def _send_phantom(to: Address) -> str:
    remedy = f"is the listener of {to} running, and is its AE title right? Its log tells"
    if reason := echo(to, calling_ae_title=_CALLING_AE_TITLE):
        raise Fault(reason, remedy)
    with _drawn_phantom() as file:
        [outcome] = send(
            survey([file]).sendable, to, calling_ae_title=_CALLING_AE_TITLE, on_outcome=_ignore
        )
    if not outcome.taken:
        raise Fault(str(outcome), remedy)
    return f"C-ECHO and C-STORE of a phantom to {to}"


@contextmanager
def _drawn_phantom() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phantom.dcm"
        phantom = draw_chest_phantom(generate_uid(None), datetime.now().astimezone())
        phantom.save_as(file, enforce_file_format=True)
        yield file


def _ignore(_outcome: Outcome) -> None:
    """Do nothing: there is one outcome, and it is returned."""


def _say(text: str) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
