"""kill -9 of any service, at any moment, still ends with one report and every instance kept."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.people import Team
from tests.acceptance.studies import a_chest_study, part10
from tests.acceptance.system import SERVICES, CountersignSystem
from tests.acceptance.test_journey import reports_in
from tests.peers.fhir import FhirServer
from tests.peers.orthanc import Orthanc
from tests.peers.processes import wait_until
from tests.peers.rabbitmq import RabbitMQ

PATIENT_S = 120
"""How long a journey may take that is interrupted."""

SIGNATURES = (
    ("doctor", "doctor-verification", "DOCTOR_VERIFIED"),
    ("pharmacist", "pharmacist-review", "PHARMACIST_COMPLETED"),
    ("admin", "approval", "REPORT_READY"),
)


class Journey:
    """One study on its way, taken a step at a time by people who try again when cut off."""

    def __init__(self, system: CountersignSystem, team: Team, orthanc: Orthanc) -> None:
        self.system, self.team, self.orthanc = system, team, orthanc
        instance = a_chest_study()
        self.study = str(instance.StudyInstanceUID)
        self.sop_instance_uid = orthanc.upload(part10(instance))
        self.case: dict[str, Any] = {}

    def steps(self) -> Iterator[Callable[[], None]]:
        """Give each step to take, in order."""
        yield self.send
        yield self.wait_for_the_model
        for role, what, status in SIGNATURES:
            yield lambda r=role, w=what, s=status: self.sign(r, w, s)
        yield self.wait_for_delivery

    def take_with_a_kill(self, service: str, chance: random.Random) -> None:
        """Take every step, and at a random moment kill a process of a service."""
        unlucky_step = chance.randrange(6)
        for number, take in enumerate(self.steps()):
            take()
            if number == unlucky_step:
                # Whatever is under way by then is cut off.
                time.sleep(chance.uniform(0, 0.4))
                print(f"{service} killed after step {number}")  # noqa: T201
                self.system.kill_one_process_of(service, chance)
        self.wait_for_delivery()

    def send(self) -> None:
        """Send until every instance has been answered 0x0000, as an archive does."""

        def sent() -> bool:
            try:
                self.orthanc.send_study(self.study, self.system.form)
            except httpx.HTTPStatusError:
                return False
            return True

        wait_until(sent, timeout_s=PATIENT_S, what="the study is taken")

    def wait_for_the_model(self) -> None:
        """Wait until the doctor has something to sign."""
        self.case = self.team.doctor.wait_for_status(self.study, "AI_ANALYZED", timeout_s=PATIENT_S)

    def sign(self, role: str, what: str, status: str) -> None:
        """Sign, and look before signing again when the answer was lost."""
        words: dict[str, str] = {"notes": "Seen."}
        if role == "doctor":
            words |= {"decision": "override", "finding": "No acute finding"}
        elif role == "admin":
            words = {}
        person = getattr(self.team, role)

        def signed() -> bool:
            with suppress(httpx.TransportError):
                person.sign(self.case["id"], what, **words)
            now = person.get(f"/cases/{self.case['id']}").json()
            return bool(now.get("status") == status)

        wait_until(signed, timeout_s=PATIENT_S, what=status)

    def wait_for_delivery(self) -> None:
        """Wait until every destination has what it is to have."""
        self.team.admin.wait_for_delivery(self.case["id"], timeout_s=PATIENT_S)

    def kept(self) -> list[Path]:
        """Return the files in which the store keeps what was sent."""
        return [
            path
            for path in Path(self.system.data_dir).rglob("*.dcm")
            if self.sop_instance_uid in path.name
        ]

    def has_ended_well(self, ehr: FhirServer) -> None:
        """Check that there is one report, and that what was answered 0x0000 is in the store."""
        [report] = reports_in(ehr, self.case["id"])
        assert report["status"] == "final"
        assert self.kept(), "the instance is not in the store"


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_killed_service_comes_back_and_loses_nothing(
    system: CountersignSystem,
    team: Team,
    orthanc: Orthanc,
    ehr: FhirServer,
    chance: random.Random,
) -> None:
    for service in chance.sample(SERVICES, len(SERVICES)):
        journey = Journey(system, team, orthanc)

        journey.take_with_a_kill(service, chance)

        journey.has_ended_well(ehr)
    # Whoever was killed last is back for the tests that follow.
    Journey(system, team, orthanc).send()


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_broker_that_is_away_loses_nothing(
    system: CountersignSystem,
    team: Team,
    orthanc: Orthanc,
    ehr: FhirServer,
    broker: RabbitMQ,
) -> None:
    journey = Journey(system, team, orthanc)

    travel_while_the_broker_is_away(journey, broker, away_s=15)

    journey.has_ended_well(ehr)


def travel_while_the_broker_is_away(journey: Journey, broker: RabbitMQ, away_s: float) -> None:
    """Stop the broker, send, start the broker again, and take the rest of the journey."""
    send, *rest = journey.steps()
    broker.stop()
    send()
    time.sleep(away_s)
    broker.start()
    for take in rest:
        take()
