"""The EHR that the tests of the bridge send to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fhir_bridge.client import FhirClient
from tests.peers.fhir import FhirServer


@pytest.fixture(scope="session")
def fhir_server() -> Iterator[FhirServer]:
    """Start one FHIR server for all tests of the bridge."""
    with FhirServer() as server:
        yield server


@pytest.fixture
def ehr(fhir_server: FhirServer) -> FhirServer:
    """Give the EHR with nothing in it."""
    fhir_server.reset()
    return fhir_server


@pytest.fixture
def client(ehr: FhirServer) -> Iterator[FhirClient]:
    """Open a client of the EHR."""
    client = FhirClient(ehr.url, timeout_s=20)
    yield client
    client.close()
