from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from admin_api.operations import OTHER_SERVICES, service_checks
from message_contracts.identifiers import case_id_of
from service_runtime.heartbeat import Heart
from service_runtime.http_server import AddressInUse, listen
from service_runtime.token_key import UnusableTokenKey, kept_key
from tests.integration.admin_api.conftest import PASSWORD, Hospital
from tests.integration.admin_api.test_sign_off import CASE, UID, problem
from tests.peers.processes import free_port, wait_until

BEFORE_ALL_TIME = base64.urlsafe_b64encode(
    f"0001-01-01T00:00:00+14:00 {case_id_of(UID)}".encode()
).decode()
"""A cursor whose moment UTC cannot express."""


def test_health_and_metrics_need_no_token(hospital: Hospital) -> None:
    anybody = hospital.anybody()

    live, ready, metrics = (
        anybody.get(path) for path in ("/health/live", "/health/ready", "/metrics")
    )

    assert live.json() == {"status": "live"}
    assert ready.json() == {"status": "ready", "checks": {"database": "ok"}}
    assert "countersign_dead_letters" in metrics.text


def test_one_address_tells_of_every_service(hospital: Hospital) -> None:
    checks = service_checks(hospital.database, lambda: datetime.now(UTC))
    hospital.app.state.api = replace(hospital.app.state.api, checks=checks)
    hearts = [Heart(hospital.database, name, os.getpid()) for name in OTHER_SERVICES]
    anybody = hospital.anybody()
    without = anybody.get("/health/ready")
    for heart in hearts:
        heart.start()
        heart.tell(ready=True)

    ready = wait_until(
        lambda: [answer] if (answer := anybody.get("/health/ready")).is_success else [],
        what="every service is ready",
    )[0]

    for heart in hearts:
        heart.close()
    assert without.status_code == 503
    assert without.json()["checks"]["fhir_bridge"] == "not running"
    assert ready.json()["checks"] == dict.fromkeys(OTHER_SERVICES, "ok")


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("DELETE", "/api/v1/cases", 405, "method-not-allowed"),
        ("GET", "/api/v1/cases?limit=0", 422, "invalid-request"),
        ("GET", "/api/v1/cases/Quill", 422, "invalid-request"),
        ("GET", f"/api/v1/cases?cursor={BEFORE_ALL_TIME}", 422, "invalid-request"),
    ],
)
def test_every_error_is_a_problem(
    hospital: Hospital, method: str, path: str, status: int, type_: str
) -> None:
    answer = hospital.hire("doctor").request(method, path)

    assert "Quill" not in str(problem(answer, status, type_))


def test_a_body_that_is_not_json_is_a_problem(hospital: Hospital) -> None:
    answer = hospital.anybody().post("/api/v1/auth/login", content=b"{Quill")

    assert "Quill" not in str(problem(answer, 422, "invalid-request"))


def test_a_body_longer_than_any_that_is_taken_is_refused_unread(hospital: Hospital) -> None:
    anybody = hospital.anybody()
    long = b'{"email": "Quill", "password": "' + b"x" * 1_000_000 + b'"}'

    told = anybody.post("/api/v1/auth/login", content=long)
    untold = anybody.post("/api/v1/auth/login", content=iter([long]))

    assert "Quill" not in str(problem(told, 413, "body-too-long"))
    problem(untold, 411, "length-required")


def test_a_fault_of_ours_tells_nothing(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    doctor = hospital.hire("doctor")

    def fault(*_: object) -> None:
        raise RuntimeError("Quill^Ada")

    monkeypatch.setattr("admin_api.case_queries.page", fault)

    answer = doctor.get("/api/v1/cases")

    assert "Quill" not in str(problem(answer, 500, "internal-error"))
    assert "RuntimeError" in logged.getvalue()
    assert "Quill" not in logged.getvalue()


def test_no_patient_and_no_query_stands_in_the_log(hospital: Hospital, logged: io.StringIO) -> None:
    hospital.analyzed(UID)
    doctor = hospital.hire("doctor")

    doctor.get(CASE, params={"name": "Quill^Ada"})
    doctor.get("/Quill/Ada")
    words = {"decision": "override", "finding": "Quill's effusion", "notes": "Ada Quill"}
    doctor.post(f"{CASE}/doctor-verification", json=words | {"password": PASSWORD})

    lines = logged.getvalue()
    assert "request.answered" in lines
    assert "case.acted_on" in lines
    for secret in ("Quill", "P1", "19700101", PASSWORD, "dropped_keys"):
        assert secret not in lines


def test_the_key_of_tokens_is_made_once_and_for_its_owner_only(tmp_path) -> None:
    folder = tmp_path / "data"

    made = kept_key(folder)

    assert kept_key(folder) == made
    assert (folder / "token.key").stat().st_mode & 0o777 == 0o600
    (folder / "token.key").write_text("short")
    with pytest.raises(UnusableTokenKey):
        kept_key(folder)


def test_an_address_that_is_taken_is_said_so() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(AddressInUse, match="HTTP_PORT"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_the_process_answers_and_drains(sqlite_url: str, tmp_path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "COUNTERSIGN_DATA_DIR": str(tmp_path / "data"),
        "COUNTERSIGN_DATABASE_URL": sqlite_url,
        "COUNTERSIGN_HTTP_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "admin_api"], env=environment)
    url = f"http://127.0.0.1:{port}"

    def live() -> bool:
        try:
            return httpx.get(f"{url}/health/live", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(live, what="the API answers")
        ready = httpx.get(f"{url}/health/ready", trust_env=False)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)

    assert ready.status_code == 503
    assert ready.json()["checks"]["workflow_engine"] == "not running"
    assert code == 0


def test_the_api_is_what_its_description_says(hospital: Hospital) -> None:
    hospital.analyzed(UID)
    authorization = hospital.hire("doctor").headers["Authorization"]
    # The token lasts as long as the test.
    hospital.step = timedelta()
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", hospital.app)
    operations = [found.ok() for found in schema.get_all_operations()]

    for operation in operations:

        @settings(
            max_examples=12,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), known=st.booleans())
        def conforms(case: schemathesis.Case, known: bool) -> None:
            if known and "case_id" in (case.path_parameters or {}):
                case.path_parameters["case_id"] = str(case_id_of(UID))
            # A cursor is opaque, and a doctor's words must fit together: no schema says so.
            case.call_and_validate(
                headers={"Authorization": authorization},
                excluded_checks=[positive_data_acceptance],
            )

        conforms()

    assert len(operations) >= 17
