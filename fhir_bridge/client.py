"""What we ask of a FHIR R4 server, and what its answers mean (R4 http §3.1.0)."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from typing_extensions import override

from message_contracts.delivery import ResourceOutcome
from service_runtime.errors import PermanentError, TransientError

_FHIR_JSON = "application/fhir+json"
_LOCATION = re.compile(r"(?P<type>[A-Z][A-Za-z]+)/(?P<id>[A-Za-z0-9\-.]{1,64})(/_history/[^/]+)?$")
_PATH = re.compile(r"[A-Za-z]+(\[[0-9]+\]|\.[A-Za-z]+(\[x\])?)*")
_CODE = re.compile(r"[a-z-]{1,32}")
_PASSING = frozenset({408, 409, 423, 425, 429})
"""Beside 5xx: what may be answered otherwise another time. 409: somebody else was writing."""
_LONGEST_WAIT_S = 24 * 3600.0


class EhrUnavailable(TransientError):
    """The EHR is away, busy, or was being written to by somebody else."""


class EhrRefused(PermanentError):
    """The EHR will never take this: what, per resource; its own words are in ``answer``."""

    def __init__(self, reason: str, outcomes: tuple[ResourceOutcome, ...], answer: str) -> None:
        super().__init__(reason)
        self.outcomes = outcomes
        self.answer = answer
        """As it came: it may quote patient data, and goes nowhere but into the store."""


@dataclass(frozen=True, slots=True)
class Issue:
    """What may be told of an OperationOutcome's issue: never its text, which may quote data."""

    code: str
    path: str

    @override
    def __str__(self) -> str:
        return f"{self.code} at {self.path}" if self.path else self.code


class FhirClient:
    """One FHIR R4 server."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            timeout=timeout_s,
            # Some servers answer a search again for a while as they did before: not what we need.
            headers={
                "Accept": _FHIR_JSON,
                "Prefer": "return=minimal",
                "Cache-Control": "no-cache",
            },
        )
        self._asked_to_wait_until = 0.0

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def search(self, query: str) -> list[dict[str, Any]]:
        """Return the resources that a search finds, such as ``Patient?identifier=…``.

        Raises
        ------
        EhrUnavailable
            No answer, or one that may be another the next time.
        EhrRefused
            The EHR does not search so.
        """
        response = self._request("GET", query)
        if not response.is_success:
            raise _refused(response, ())
        return [
            entry["resource"]
            for entry in _resource_of(response, "Bundle").get("entry", [])
            if entry.get("search", {}).get("mode", "match") == "match"
        ]

    def read(self, reference: str) -> dict[str, Any] | None:
        """Return a resource such as ``Patient/1``; None where it is not, or not any more.

        Unlike a search, it shows what has just been written wherever searches lag behind.

        Raises
        ------
        EhrUnavailable
            No answer, or one that may be another the next time.
        EhrRefused
            The EHR does not let it be read.
        """
        response = self._request("GET", reference)
        if response.status_code in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
            return None
        if not response.is_success:
            raise _refused(response, ())
        return _resource_of(response, reference.partition("/")[0])

    def transact(self, bundle: dict[str, Any]) -> tuple[ResourceOutcome, ...]:
        """Post a transaction and return what became of each entry.

        A server whose transactions are switched off answers 200 and does entry by entry, so
        every entry's status is looked at.

        Raises
        ------
        EhrUnavailable
            No answer, or one that may be another the next time: send the same again.
        EhrRefused
            Sending the same again cannot help.
        """
        kinds = [str(entry["resource"]["resourceType"]) for entry in bundle["entry"]]
        response = self._request("POST", "", bundle)
        if_match = ["ifMatch" in entry["request"] for entry in bundle["entry"]]
        if any(if_match) and response.status_code == httpx.codes.PRECONDITION_FAILED:
            raise EhrUnavailable("the report at the EHR has changed since it was looked at")
        if not response.is_success:
            raise _refused(response, kinds)
        answers = _resource_of(response, "Bundle").get("entry", [])
        if len(answers) != len(kinds):
            raise EhrUnavailable("the EHR did not answer for every entry of the transaction")
        outcomes = tuple(map(_outcome, kinds, answers))
        failed = [
            (it, _may_pass(code) or (conditional and code == httpx.codes.PRECONDITION_FAILED))
            for it, conditional in zip(outcomes, if_match, strict=True)
            if not httpx.codes.is_success(code := _status_code(it.status))
        ]
        if failed:
            what = ", ".join(f"{it.resource_type} {it.status}" for it, _ in failed)
            if any(may_pass for _, may_pass in failed):
                raise EhrUnavailable(f"the EHR took a part of the transaction only: {what}")
            raise EhrRefused(
                f"the EHR took a part of the transaction only: {what}", outcomes, response.text
            )
        return outcomes

    def _request(self, method: str, path: str, body: object = None) -> httpx.Response:
        wait_s = self._asked_to_wait_until - time.monotonic()
        if wait_s > 0:
            raise EhrUnavailable(f"the EHR asked to be left alone for another {wait_s:.0f} s")
        url = f"{self._url}/{path}" if path else self._url
        headers = {} if body is None else {"Content-Type": f"{_FHIR_JSON}; charset=utf-8"}
        try:
            response = self._http.request(method, url, json=body, headers=headers)
        except httpx.TransportError as error:
            raise EhrUnavailable(f"no answer from the EHR: {type(error).__name__}") from error
        if _may_pass(response.status_code):
            wait_s = _retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
            self._asked_to_wait_until = time.monotonic() + wait_s
            raise EhrUnavailable(f"the EHR answered {response.status_code}")
        return response


def _may_pass(status_code: int) -> bool:
    return status_code in _PASSING or status_code >= httpx.codes.INTERNAL_SERVER_ERROR


def _resource_of(response: httpx.Response, kind: str) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or body.get("resourceType") != kind:
        raise EhrUnavailable(f"the answer is not a FHIR {kind}: a proxy's page, perhaps")
    return body


def _outcome(kind: str, answer: dict[str, Any]) -> ResourceOutcome:
    response = answer.get("response", {})
    status = str(response.get("status", ""))
    code = _status_code(status)
    text = str(code)
    if not httpx.codes.is_success(code):
        text = " ".join([text, *map(str, issues_of(response.get("outcome")))])
    location = _LOCATION.search(str(response.get("location", "")))
    resource_id = answer.get("resource", {}).get("id")
    server_id = location["id"] if location else resource_id
    return ResourceOutcome(resource_type=kind, status=text[:200], server_id=server_id)


def _status_code(status: str) -> int:
    """Return the number at the start of a status such as ``201 Created``; 500 if there is none."""
    match = re.match(r"\d{3}\b", status)
    return int(match[0]) if match else 500


def _refused(response: httpx.Response, kinds: list[str] | tuple[str, ...]) -> EhrRefused:
    try:
        issues = issues_of(response.json())
    except ValueError:
        issues = []
    what = "; ".join(map(str, issues[:5])) or "it did not say why"
    outcomes = tuple(
        ResourceOutcome(resource_type=kind, status=_blamed(kind, index, issues, response))
        for index, kind in enumerate(kinds)
    )
    reason = f"the EHR refused with {response.status_code}: {what}"
    return EhrRefused(reason[:400], outcomes, response.text)


def _blamed(kind: str, index: int, issues: list[Issue], response: httpx.Response) -> str:
    own = [
        str(issue)
        for issue in issues
        if issue.path.startswith((f"{kind}.", f"Bundle.entry[{index}]")) or issue.path == kind
    ]
    if not own:
        return "not stored"
    return f"{response.status_code} {'; '.join(own)}"[:200]


def issues_of(outcome: object) -> list[Issue]:
    """Return the errors of an OperationOutcome: issue type and FHIRPath only."""
    if not isinstance(outcome, dict) or outcome.get("resourceType") != "OperationOutcome":
        return []
    return [
        Issue(
            code if _CODE.fullmatch(code := str(issue.get("code", ""))) else "unknown",
            _path_of(issue),
        )
        for issue in outcome.get("issue", [])
        if issue.get("severity") in {"fatal", "error"}
    ]


def _path_of(issue: dict[str, Any]) -> str:
    paths = [*issue.get("expression", []), *issue.get("location", [])]
    return next((path for path in map(str, paths) if _PATH.fullmatch(path)), "")


def _retry_after_s(value: str | None, now: datetime) -> float:
    """Return how long Retry-After (RFC 9110 §10.2.3) asks to wait: seconds or an HTTP date."""
    if not value:
        return 0.0
    if value.isdigit():
        return min(float(value), _LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), _LONGEST_WAIT_S)
