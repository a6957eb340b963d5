"""The people who sign, and what they see of a case."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx

from tests.acceptance.system import CountersignSystem
from tests.peers.processes import PATIENCE_S, wait_until

PASSWORD = "correct horse battery staple"
ROLES = ("doctor", "pharmacist", "admin")


class Person:
    """Somebody with an account, logged in."""

    def __init__(self, system: CountersignSystem, email: str) -> None:
        self.email = email
        self._http = httpx.Client(base_url=f"{system.url}/api/v1", timeout=60, trust_env=False)
        self.log_in()

    def log_in(self) -> None:
        """Get a token that is valid for a while."""

        def token() -> str | None:
            try:
                answer = self._http.post(
                    "/auth/login", json={"email": self.email, "password": PASSWORD}
                )
            except httpx.TransportError:
                return None
            return answer.raise_for_status().json()["access_token"]

        bearer = wait_until(token, what="the API takes a log-in")
        self._http.headers["Authorization"] = f"Bearer {bearer}"

    def get(self, path: str, **parameters: str) -> httpx.Response:
        """Read something of the API; an API that is being restarted is asked again."""

        def answer() -> list[httpx.Response]:
            try:
                return [self._http.get(path, params=parameters)]
            except httpx.TransportError:
                return []

        # In a list, because a response that tells of an error counts as false.
        return wait_until(answer, what=path)[0]

    def request(self, method: str, path: str) -> httpx.Response:
        """Ask anything, once."""
        return self._http.request(method, path)

    def post(self, path: str, words: dict[str, Any]) -> httpx.Response:
        """Ask for something to be done, once."""
        return self._http.post(path, json=words)

    def case_of(self, study_instance_uid: str) -> dict[str, Any] | None:
        """Return the case of a study, found by walking the whole list."""
        cursor: dict[str, str] = {}
        while True:
            page = self.get("/cases", limit="100", **cursor).raise_for_status().json()
            for case in page["items"]:
                if case["study_instance_uid"] == study_instance_uid:
                    return dict(case)
            if not page["next"]:
                return None
            cursor = {"cursor": page["next"]}

    def wait_for_status(
        self,
        study_instance_uid: str,
        *statuses: str,
        timeout_s: float = PATIENCE_S,
        version: int = 1,
    ) -> dict[str, Any]:
        """Wait until the case of a study has one of these statuses, and return the case."""

        def there() -> dict[str, Any] | None:
            case = self.case_of(study_instance_uid)
            if case and case["status"] in statuses and case["version"] >= version:
                return case
            return None

        return wait_until(there, timeout_s=timeout_s, what=f"a case that is {statuses}")

    def wait_for_delivery(
        self, case_id: str, state: str = "DELIVERED", timeout_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Wait until every destination of a case's report has this state."""

        def there() -> dict[str, Any] | None:
            case = self.get(f"/cases/{case_id}").raise_for_status().json()
            states = {row["state"] for row in case["deliveries"]}
            return dict(case) if states == {state} else None

        return wait_until(there, timeout_s=timeout_s, what=f"everything {state}")

    def sign(self, case_id: str, what: str, **words: Any) -> httpx.Response:
        """Call one of the sign-off resources, giving the password again."""
        body = {"password": PASSWORD, **words}
        return self._http.post(f"/cases/{case_id}/{what}", json=body)


class Team:
    """A doctor, a pharmacist and an admin of one system."""

    def __init__(self, system: CountersignSystem, name: str = "team") -> None:
        for role in ROLES:
            subprocess.run(
                [
                    *(sys.executable, "-m", "countersign", "users", "add"),
                    *(f"{name}-{role}@hospital.example", "--role", role, "--password-stdin"),
                    *("--name", f"{role.title()} {name.title()}"),
                ],
                input=PASSWORD,
                text=True,
                env=system.environment,
                check=True,
                capture_output=True,
                timeout=60,
            )
        self.doctor, self.pharmacist, self.admin = (
            Person(system, f"{name}-{role}@hospital.example") for role in ROLES
        )

    def verify(self, case: dict[str, Any], finding: str = "No acute finding") -> dict[str, Any]:
        """Let the doctor sign: agree where that is possible, else with a finding of their own."""
        if case["findings"] and not case["uncertain"]:
            words = {"decision": "agree"}
        else:
            words = {"decision": "override", "finding": finding, "notes": "Read by a person."}
        answer = self.doctor.sign(case["id"], "doctor-verification", **words)
        return dict(answer.raise_for_status().json())

    def countersign(self, case: dict[str, Any]) -> dict[str, Any]:
        """Let all three sign, each at once after the other, and return the last answer."""
        verified = self.verify(case)
        assert verified["status"] == "DOCTOR_VERIFIED"
        reviewed = self.pharmacist.sign(case["id"], "pharmacist-review", notes="No interaction.")
        assert reviewed.raise_for_status().json()["status"] == "PHARMACIST_COMPLETED"
        approved = self.admin.sign(case["id"], "approval").raise_for_status().json()
        assert approved["status"] == "REPORT_READY"
        return dict(approved)
