"""A recognizable patient goes through everything and is found only where patients belong."""

from __future__ import annotations

import httpx
from sqlalchemy import create_engine, text

from tests.acceptance.people import Team
from tests.acceptance.studies import a_chest_study, part10
from tests.acceptance.system import CountersignSystem
from tests.peers.orthanc import Orthanc
from tests.peers.rabbitmq import RabbitMQ

RECOGNIZABLE = {
    "name": "Wiedererkennbar",
    "Patient ID": "PID-8264571",
    "accession number": "ACC-5519023",
    "birth date": "19310817",
    "birth date as FHIR has it": "1931-08-17",
    "notes": "Zebrafinkenlunge",
}
MESSAGE_TABLES = ("message", "delivery", "inbox", "dead_letter", "history", "service_heartbeat")


def test_a_patient_is_in_no_log_metric_message_or_error(
    system: CountersignSystem, team: Team, orthanc: Orthanc
) -> None:
    instance = a_chest_study()
    study = str(instance.StudyInstanceUID)
    instance.PatientName = f"{RECOGNIZABLE['name']}^Anna"
    instance.PatientID = RECOGNIZABLE["Patient ID"]
    instance.AccessionNumber = RECOGNIZABLE["accession number"]
    instance.PatientBirthDate = RECOGNIZABLE["birth date"]
    orthanc.upload(part10(instance))
    orthanc.send_study(study, system.form)
    case = team.doctor.wait_for_status(study, "AI_ANALYZED")
    errors = [
        team.doctor.get(f"/cases/{RECOGNIZABLE['Patient ID']}"),
        team.doctor.get("/cases", status=RECOGNIZABLE["name"]),
        team.doctor.sign(case["id"], "doctor-verification", notes=RECOGNIZABLE["notes"]),
        team.doctor.sign(
            case["id"],
            "doctor-verification",
            decision=RECOGNIZABLE["notes"],
            notes=RECOGNIZABLE["notes"],
        ),
    ]
    words = {"decision": "override", "finding": "Normal", "notes": RECOGNIZABLE["notes"]}
    team.doctor.sign(case["id"], "doctor-verification", **words).raise_for_status()
    team.pharmacist.sign(
        case["id"], "pharmacist-review", notes=RECOGNIZABLE["notes"]
    ).raise_for_status()
    team.admin.sign(case["id"], "approval").raise_for_status()
    team.admin.wait_for_delivery(case["id"])

    places = {
        **system.logs(),
        **{f"error {error.url.path}": error.text for error in errors[1:]},
        "first error": errors[0].text.replace(str(errors[0].url), ""),
        "metrics": httpx.get(f"{system.url}/metrics", trust_env=False).text,
        **stored_messages(system),
    }

    # Else nothing was searched.
    assert any("study" in place for place in places.values())
    assert all(error.status_code >= 400 for error in errors)
    found = [
        f"{what} in {where}"
        for where, content in places.items()
        for what, value in RECOGNIZABLE.items()
        if value.lower() in content.lower()
    ]
    assert found == []


def stored_messages(system: CountersignSystem) -> dict[str, str]:
    """Return what the messaging tables and the history hold, by table."""
    url = system.environment.get("COUNTERSIGN_DATABASE_URL")
    if url is None:
        [file] = system.data_dir.glob("*.sqlite3")
        url = f"sqlite:///{file}"
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = {
            table: "\n".join(
                str(tuple(bytes(cell) if isinstance(cell, memoryview) else cell for cell in row))
                for row in connection.execute(text(f"SELECT * FROM {table}"))
            )
            for table in MESSAGE_TABLES
        }
    engine.dispose()
    return rows


def test_no_queue_is_named_for_a_patient(system: CountersignSystem, broker: RabbitMQ) -> None:
    queues = broker.queues(system.environment["COUNTERSIGN_BROKER_URL"])

    assert queues
    assert not [
        queue
        for queue in queues
        for value in RECOGNIZABLE.values()
        if value.lower() in str(queue).lower()
    ]
