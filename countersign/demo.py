"""``countersign demo``: one study from C-STORE to a signed report, in a system of its own."""

import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from rich.console import Console

from countersign.phantom import LABEL, draw_chest_phantom
from countersign.reviewer import ROLES, Reviewer
from countersign.send import Address, Outcome, Survey, send, survey
from countersign.throwaway_system import (
    AE_TITLE,
    LOOPBACK,
    StepFailed,
    System,
    running_system,
    wait_for,
)
from countersign.user_commands import add_user
from service_runtime.database import Database
from service_runtime.errors import CountersignError
from service_runtime.settings import DatabaseSettings

PYDICOM_FILES = ("CT_small.dcm", "MR_small.dcm", "examples_ybr_color.dcm")
"""Real ones that pydicom ships: a CT, an MR and an ultrasound; no chest model reads them."""

RESULTS = ("heatmap.png", "report.pdf", "bundle.json", "history.json")
OWN_FINDING = "Demonstration: no finding of a person"
NOTES = "Written by the demonstration, not by a clinician."

_DRAWN = "countersign-phantom.dcm"
_READ_WITHIN_S = 240
"""Each model that is asked for is loaded first."""
_DELIVERED_WITHIN_S = 60
_UNDER_WAY = {"RECEIVING", "PENDING_AI"}
_SIGNABLE = ("AI_ANALYZED", "AI_FAILED", "NO_MODEL")
"""In the order in which the demo would rather sign them."""


def demo(files: list[Path], keep: Path | None) -> int:
    """Run the demo; return 0 where every step did what it should."""
    console = Console(highlight=False, soft_wrap=True)
    results = (keep or Path("demo")).absolute()
    # What they are given may be a patient's.
    results.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in RESULTS:
        (results / name).unlink(missing_ok=True)
    console.print("[bold]Countersign demo[/]: not a medical device, not for clinical use.")
    with _data_folder(keep) as data_dir:
        try:
            found = _choose(console, files, data_dir.parent / "drawn")
            with _started(console, data_dir) as system:
                _journey(console, system, found, results)
        except (CountersignError, httpx.HTTPError, OSError, KeyError) as error:
            console.print(f"failed: {type(error).__name__}: {error}", markup=False, style="red")
            if logs := _save_logs(data_dir, results):
                console.print(f"The logs are in {logs}", markup=False)
            return 1
    _tell_where(console, results, keep)
    return 0


def _journey(console: Console, system: System, found: Survey, results: Path) -> None:
    with _step(console, "accounts for a doctor, a pharmacist and an admin"):
        team = _make_team(system)
    with _step(console, f"{len(found.sendable)} instances sent by C-STORE"):
        taken = _send(console, system, found)
    with _step(console, "every study complete, read where a model (loaded first) reads it"):
        cases = _wait_until_read(team["doctor"], _studies_of(taken))
    for case in cases:
        console.print(f"     {_summary(case)}", markup=False)
    if any(file.path.name == _DRAWN for file in found.sendable):
        console.print("     (What a model says of a drawing means nothing.)")
    case = _choose_case(cases)
    _sign(console, team, case)
    with _step(console, "report delivered"):
        delivered = wait_for(
            lambda: _delivered(team["admin"].case(case["id"])),
            _DELIVERED_WITHIN_S,
            "the report's delivery",
        )
    for row in delivered["deliveries"]:
        console.print(f"     {row['destination']}: {row['state']}")
    _save_results(console, team["admin"], delivered, system.data_dir, results)


@contextmanager
def _data_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep.absolute() / "data"
        return
    with tempfile.TemporaryDirectory(prefix="countersign-demo-") as folder:
        yield Path(folder) / "data"


@contextmanager
def _started(console: Console, data_dir: Path) -> Iterator[System]:
    with ExitStack() as stack:
        with _step(console, "every service started"):
            system = stack.enter_context(running_system(data_dir))
        yield system


def _make_team(system: System) -> dict[str, Reviewer]:
    database = Database(DatabaseSettings(data_dir=system.data_dir, database_url="").database)
    team = {}
    try:
        for role in ROLES:
            password = secrets.token_urlsafe(18)
            # Folders that were kept have accounts already, whose passwords nobody knows.
            email = f"{role}-{secrets.token_hex(3)}@demo.example"
            add_user(database, email, role, f"Demo {role.title()}", password)
            team[role] = Reviewer(system.url, email, password)
    finally:
        database.close()
    return team


def _choose(console: Console, files: list[Path], drawn: Path) -> Survey:
    if files:
        found = survey(files)
        for outcome in found.skipped:
            console.print(f"     skipped {outcome.path}: {outcome.reason}", markup=False)
        if not found.sendable:
            raise StepFailed("none of the files is DICOM")
        return found
    with _step(console, f"a chest drawn, labeled {LABEL} in pixels and attributes"):
        drawn.mkdir(parents=True, exist_ok=True)
        phantom = draw_chest_phantom(generate_uid(None), datetime.now().astimezone())
        phantom.save_as(drawn / _DRAWN, enforce_file_format=True)
    shipped = [get_testdata_file(name, download=False) for name in PYDICOM_FILES]
    return survey([drawn / _DRAWN, *(Path(str(path)) for path in shipped if path)])


def _send(console: Console, system: System, found: Survey) -> list[Path]:
    taken: list[Path] = []

    def note(outcome: Outcome) -> None:
        if outcome.taken:
            taken.append(outcome.path)
        else:
            console.print(f"     refused {outcome}", markup=False)

    address = Address(AE_TITLE, LOOPBACK, system.dicom_port)
    send(found.sendable, address, calling_ae_title="DEMO", on_outcome=note)
    if not taken:
        raise StepFailed("no instance was taken")
    return taken


def _studies_of(files: list[Path]) -> set[str]:
    return {
        str(dcmread(file, specific_tags=["StudyInstanceUID"], force=True).StudyInstanceUID)
        for file in files
    }


def _wait_until_read(doctor: Reviewer, studies: set[str]) -> list[dict[str, Any]]:
    def read() -> list[dict[str, Any]]:
        cases = [case for case in doctor.cases() if case["study_instance_uid"] in studies]
        waiting = [case for case in cases if case["status"] in _UNDER_WAY]
        return cases if len(cases) == len(studies) and not waiting else []

    return wait_for(read, _READ_WITHIN_S, "the model")


def _choose_case(cases: list[dict[str, Any]]) -> dict[str, Any]:
    for status in _SIGNABLE:
        for case in cases:
            if case["status"] == status:
                return case
    raise StepFailed(f"no case can be signed: {', '.join(case['status'] for case in cases)}")


def _summary(case: dict[str, Any]) -> str:
    text = f"{case['modality'] or 'study'}: {case['status']}"
    if case["findings"]:
        best = case["findings"][0]
        word = "Uncertain, most probable" if case["uncertain"] else "finding"
        text += f", {word} {best['label']} ({best['probability']:.0%}), {best['model']}"
    if case["status"] == "NO_MODEL":
        text += " (kept and listed; no model's rule fits it)"
    if case.get("failure"):
        text += f": {'refused: ' if case.get('refused') else ''}{case['failure']}"
    return text


def _sign(console: Console, team: dict[str, Reviewer], case: dict[str, Any]) -> None:
    if case["status"] == "AI_ANALYZED" and not case["uncertain"]:
        words = {"decision": "agree", "notes": NOTES}
        said = "doctor agreed with the model"
    else:
        words = {"decision": "override", "finding": OWN_FINDING, "notes": NOTES}
        said = f'doctor overrode, because the model did not decide: "{OWN_FINDING}"'
    steps: tuple[tuple[str, str, dict[str, str], str, str], ...] = (
        ("doctor", "doctor-verification", words, "DOCTOR_VERIFIED", said),
        ("pharmacist", "pharmacist-review", {"notes": NOTES}, "PHARMACIST_COMPLETED", "pharmacist"),
        ("admin", "approval", {}, "REPORT_READY", "admin approved"),
    )
    for role, resource, body, status, text in steps:
        with _step(console, f"{text}: {status}"):
            answer = team[role].sign(case["id"], resource, body)
            if answer["status"] != status:
                raise StepFailed(f"the case is {answer['status']} after {resource}")


def _delivered(case: dict[str, Any]) -> dict[str, Any] | None:
    states = {row["state"] for row in case["deliveries"]}
    if "FAILED" in states:
        raise StepFailed(f"delivery failed: {case['deliveries']}")
    return case if states == {"DELIVERED"} else None


def _save_results(
    console: Console, admin: Reviewer, case: dict[str, Any], data_dir: Path, results: Path
) -> None:
    heatmap = admin.bytes_of(case["id"], "heatmap.png")
    if heatmap:
        (results / "heatmap.png").write_bytes(heatmap)
    else:
        console.print("     there is no heat map: no model read the study that was signed")
    (results / "report.pdf").write_bytes(admin.bytes_of(case["id"], "report.pdf"))
    history = json.loads(admin.bytes_of(case["id"], "history"))
    (results / "history.json").write_text(json.dumps(history, indent=2, ensure_ascii=False) + "\n")
    bundles = [path for path in (data_dir / "ehr-outbox").rglob("*.json") if _is_bundle(path)]
    newest = max(bundles, key=lambda path: path.stat().st_mtime_ns, default=None)
    if newest is None:
        raise StepFailed("there is no Bundle in ehr-outbox")
    shutil.copyfile(newest, results / "bundle.json")


def _is_bundle(path: Path) -> bool:
    content = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(content, dict) and content.get("resourceType") == "Bundle"


def _save_logs(data_dir: Path, results: Path) -> Path | None:
    """Copy the logs out of a folder that is about to go; return where they are, if any."""
    if not (data_dir / "up.log").exists():
        return None
    if data_dir.is_relative_to(results):
        return data_dir / "logs"
    logs = results / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    if (data_dir / "logs").is_dir():
        shutil.copytree(data_dir / "logs", logs)
    logs.mkdir(exist_ok=True)
    shutil.copyfile(data_dir / "up.log", logs / "up.log")
    return logs


def _tell_where(console: Console, results: Path, keep: Path | None) -> None:
    for name, what in zip(RESULTS, ("heat map", "PDF", "Bundle", "history"), strict=True):
        if (results / name).exists():
            console.print(f"  {what:<9} {results / name}", markup=False)
    if keep is not None:
        console.print(
            f"The data is kept; look around with `countersign up --data {results / 'data'}`.",
            markup=False,
        )


@contextmanager
def _step(console: Console, text: str) -> Iterator[None]:
    began = time.monotonic()
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        yield
    seconds = f"{time.monotonic() - began:.1f} s"
    console.print(f"[green]ok[/]   {text} [dim]({seconds})[/]")
