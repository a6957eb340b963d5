"""The kills and the broken broker in long counts: ``make soak``; JSON on standard output."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter

import pytest

from tests.acceptance.people import Team
from tests.acceptance.system import SERVICES, CountersignSystem
from tests.acceptance.test_journey import reports_in
from tests.acceptance.test_kills import Journey, travel_while_the_broker_is_away
from tests.peers.fhir import FhirServer
from tests.peers.orthanc import Orthanc
from tests.peers.rabbitmq import RabbitMQ

KILLS_OF_EACH_FORM = int(os.environ.get("COUNTERSIGN_SOAK_KILLS", "100"))
BROKER_AWAY_S = 60

pytestmark = pytest.mark.soak


def report(**figures: object) -> None:
    # On a line of its own, which pytest's dots would begin.
    print("\n" + json.dumps(figures))  # noqa: T201 - the figures are what a soak is run for


def test_many_kills_lose_nothing_and_make_nothing_twice(
    system: CountersignSystem,
    team: Team,
    orthanc: Orthanc,
    ehr: FhirServer,
    chance: random.Random,
) -> None:
    killed: Counter[str] = Counter()
    journeys: list[Journey] = []
    began = time.monotonic()
    for _ in range(KILLS_OF_EACH_FORM):
        service = chance.choice(SERVICES)
        journey = Journey(system, team, orthanc)

        journey.take_with_a_kill(service, chance)

        journey.has_ended_well(ehr)
        killed[service] += 1
        journeys.append(journey)
        for person in (team.doctor, team.pharmacist, team.admin):
            person.log_in()
    report(
        soak="kills",
        form=system.form,
        kills=killed.total(),
        by_service=dict(killed),
        studies=len(journeys),
        reports_in_the_ehr=sum(len(reports_in(ehr, each.case["id"])) for each in journeys),
        instances_in_the_store=sum(len(each.kept()) for each in journeys),
        seconds=round(time.monotonic() - began),
        seed=os.environ.get("COUNTERSIGN_TEST_SEED"),
    )


def test_a_broker_that_is_away_for_a_minute_loses_nothing(
    system: CountersignSystem,
    team: Team,
    orthanc: Orthanc,
    ehr: FhirServer,
    broker: RabbitMQ,
) -> None:
    journey = Journey(system, team, orthanc)

    travel_while_the_broker_is_away(journey, broker, BROKER_AWAY_S)

    journey.has_ended_well(ehr)
    report(
        soak="broker away",
        seconds=BROKER_AWAY_S,
        reports_in_the_ehr=len(reports_in(ehr, journey.case["id"])),
        instances_in_the_store=len(journey.kept()),
    )
