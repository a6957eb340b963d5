"""Somebody who reads and signs cases through the HTTP API."""

from typing import Any

import httpx

from message_contracts.case import Stage

ROLES = tuple(stage.value for stage in Stage)
_TIMEOUT_S = 30


class Reviewer:
    """A user, logged in."""

    def __init__(self, url: str, email: str, password: str) -> None:
        self._password = password
        # Requests to our own machine must not go through a proxy.
        self._http = httpx.Client(base_url=f"{url}/api/v1", timeout=_TIMEOUT_S, trust_env=False)
        answer = self._http.post("/auth/login", json={"email": email, "password": password})
        self._http.headers["Authorization"] = f"Bearer {_checked(answer).json()['access_token']}"

    def cases(self) -> list[dict[str, Any]]:
        """Return every case."""
        found: list[dict[str, Any]] = []
        parameters = {"limit": "100"}
        while True:
            page = _checked(self._http.get("/cases", params=parameters)).json()
            found += page["items"]
            if not page["next"]:
                return found
            parameters["cursor"] = page["next"]

    def case(self, case_id: str) -> dict[str, Any]:
        """Return one case with its deliveries."""
        case: dict[str, Any] = _checked(self._http.get(f"/cases/{case_id}")).json()
        return case

    def sign(self, case_id: str, resource: str, body: dict[str, str]) -> dict[str, Any]:
        """Sign a stage with the password again; return the case as it is then."""
        words = {**body, "password": self._password}
        answer = self._http.post(f"/cases/{case_id}/{resource}", json=words)
        case: dict[str, Any] = _checked(answer).json()
        return case

    def bytes_of(self, case_id: str, resource: str) -> bytes:
        """Return what a case has under this name; nothing where it has none."""
        answer = self._http.get(f"/cases/{case_id}/{resource}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return b""
        return _checked(answer).content


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        try:
            problem = answer.json()
            reason = problem.get("detail") or problem.get("title")
        except ValueError:
            reason = answer.reason_phrase
        raise httpx.HTTPStatusError(
            f"{answer.request.method} {answer.request.url.path}: {answer.status_code}: {reason}",
            request=answer.request,
            response=answer,
        )
    return answer
