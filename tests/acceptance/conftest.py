"""One running system of each form, shared by the tests, which keep to studies of their own."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override
from xdist.scheduler import LoadScopeScheduling

from tests.acceptance.people import Team
from tests.acceptance.system import (
    AE_TITLE,
    CountersignSystem,
    DistributedSystem,
    EmbeddedSystem,
    Surroundings,
)
from tests.peers.fhir import FhirServer
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.postgresql import PostgreSQL
from tests.peers.rabbitmq import RabbitMQ
from tests.tiny_model import make_tiny_model

FORMS = ("embedded", "distributed")


class FormScheduling(LoadScopeScheduling):
    """One test process runs all tests of a form, for which it starts one system."""

    @override
    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        return next((form for form in FORMS if f"[{form}" in test), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FormScheduling:
    return FormScheduling(config, log)


@pytest.fixture
def chance() -> random.Random:
    """Give what decides at random; COUNTERSIGN_TEST_SEED repeats a run."""
    seed = os.environ.get("COUNTERSIGN_TEST_SEED") or str(random.SystemRandom().randrange(2**32))
    print(f"COUNTERSIGN_TEST_SEED={seed}")  # noqa: T201 - a failure must be repeatable
    return random.Random(seed)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny-chest")
    return folder


@pytest.fixture(scope="session")
def ehr() -> Iterator[FhirServer]:
    with FhirServer() as server:
        yield server


@pytest.fixture(scope="session")
def surroundings(models_dir: Path, ehr: FhirServer, orthanc: Orthanc) -> Surroundings:
    return Surroundings(models_dir, ehr.url, orthanc.ae_title, orthanc.dicom_port)


def start_system(
    form: str, surroundings: Surroundings, request: pytest.FixtureRequest
) -> CountersignSystem:
    """Make a system of this form, with servers of its own where it needs them."""
    if form == "embedded":
        return EmbeddedSystem(surroundings)
    postgresql: PostgreSQL = request.getfixturevalue("postgresql")
    rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
    return DistributedSystem(surroundings, postgresql.create_database(), rabbitmq.create_vhost())


@pytest.fixture(scope="session", params=FORMS)
def system(
    request: pytest.FixtureRequest, surroundings: Surroundings, orthanc: Orthanc
) -> Iterator[CountersignSystem]:
    running = start_system(request.param, surroundings, request)
    orthanc.add_modality(running.form, Modality(AE_TITLE, running.dicom_port))
    with running:
        yield running


@pytest.fixture
def broker(system: CountersignSystem, request: pytest.FixtureRequest) -> RabbitMQ:
    """Give the broker of the running system, of the form that has one."""
    if not isinstance(system, DistributedSystem):
        pytest.skip("the embedded form has no broker")
    node: RabbitMQ = request.getfixturevalue("rabbitmq")
    return node


@pytest.fixture(scope="session")
def team(system: CountersignSystem) -> Team:
    return Team(system)
