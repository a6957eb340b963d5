"""A private FHIR R4 server: the EHR that takes the Bundle, and the judge of every resource."""

from __future__ import annotations

import fcntl
import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from typing_extensions import override

from tests.peers.processes import (
    LOOPBACK,
    Peer,
    PeerFailed,
    ServerProcess,
    find_program,
    private_folder,
    require,
)

_SOURCES = Path(__file__).parent / "fhir_server"
_INSTALL = Path(__file__).parents[2] / "scripts" / "install-npm"


class FhirServer(Peer):
    """A FHIR R4 (4.0.1) server in memory that validates what it is given.

    It checks every write against the official StructureDefinitions, keeps resources with
    their history, and knows search, conditional interactions and transactions.
    """

    def __init__(self) -> None:
        node = require(find_program("node"), "Node.js", "nodejs, npm")
        self._log = private_folder("fhir") / "server.log"
        self.processes = [ServerProcess([node, installed() / "server.mjs"], log=self._log)]
        self.url = ""
        self._http = httpx.Client(timeout=60, trust_env=False)

    @override
    def start(self) -> None:
        # On the port it has had before, so that what was told its address finds it again.
        server = self.processes[0]
        server.command[2:] = [self.url.rpartition(":")[2]] if self.url else []
        already = self._log.read_text().count("listening on") if self._log.exists() else 0
        server.start()
        port = server.wait_until_ready(lambda: self._announced_port(already))
        self.url = f"http://{LOOPBACK}:{port}"

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._http.close()

    def _announced_port(self, already: int) -> str | None:
        ports = re.findall(r"listening on (\d+)\n", self._log.read_text())
        return ports[-1] if len(ports) > already else None

    def issues(self, resource: dict[str, Any]) -> list[str]:
        """Return what is wrong with a resource by the official definitions; nothing is kept."""
        answer = self._http.post(f"{self.url}/_peer/validate", json=resource).json()
        return [
            f"{' '.join(issue.get('expression', []))}: {issue['details']['text']}"
            for issue in answer["issue"]
        ]

    def search(self, resource_type: str, **parameters: str) -> list[dict[str, Any]]:
        """Return the resources of a type that match."""
        answer = self._http.get(f"{self.url}/{resource_type}", params=parameters)
        entries = answer.raise_for_status().json().get("entry", [])
        return [entry["resource"] for entry in entries]

    def history(self, resource: dict[str, Any]) -> list[dict[str, Any]]:
        """Return every version of a resource, newest first."""
        path = f"{resource['resourceType']}/{resource['id']}/_history"
        answer = self._http.get(f"{self.url}/{path}").raise_for_status().json()
        return [entry["resource"] for entry in answer["entry"]]

    def post(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Create a resource, as another system would."""
        answer = self._http.post(f"{self.url}/{resource['resourceType']}", json=resource)
        created: dict[str, Any] = answer.raise_for_status().json()
        return created

    def put(self, resource: dict[str, Any]) -> None:
        """Update a resource, as another system would."""
        path = f"{resource['resourceType']}/{resource['id']}"
        self._http.put(f"{self.url}/{path}", json=resource).raise_for_status()

    def delete(self, resource: dict[str, Any]) -> None:
        """Take a resource away, as another system would."""
        path = f"{resource['resourceType']}/{resource['id']}"
        self._http.delete(f"{self.url}/{path}").raise_for_status()

    def requests(self) -> list[dict[str, Any]]:
        """Return what was asked since the start or the last ``reset``: method, path, status."""
        asked: list[dict[str, Any]] = self._http.get(f"{self.url}/_peer/requests").json()
        return asked

    def answer_next(
        self,
        status: int,
        *,
        count: int = 1,
        headers: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> None:
        """Answer the next requests with this status, and do nothing else about them."""
        fault = {"count": count, "status": status, "headers": headers or {}}
        self._tell("faults", fault | ({} if body is None else {"body": body}))

    def lose_next_reply(self, *, count: int = 1, skip: int = 0) -> None:
        """Do what the next requests ask, after ``skip`` others, and cut the connection."""
        if skip:
            self._tell("faults", {"count": skip})
        self._tell("faults", {"count": count, "drop": "after"})

    def mend(self) -> None:
        """Answer every request from now on."""
        self._tell("mend", {})

    def treat_transactions_as_batches(self) -> None:
        """Behave as servers do whose transactions are switched off: 200, and no atomicity."""
        self._tell("options", {"transactions": False})

    def reset(self) -> None:
        """Forget resources, requests, faults and options."""
        self._tell("reset", {})

    def _tell(self, what: str, value: dict[str, Any]) -> None:
        self._http.post(f"{self.url}/_peer/{what}", json=value).raise_for_status()


def start_fhir_server() -> FhirServer:
    """Start a server and return it: ``url``, ``stop()`` and what tests ask of it."""
    server = FhirServer()
    server.start()
    return server


def installed() -> Path:
    """Return the folder with the server, and install the packages it needs where they are not."""
    require(find_program("npm"), "npm", "npm")
    with (_SOURCES / "package.json").open() as lock:
        # Test processes that run side by side install once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = subprocess.run(
            [_INSTALL], capture_output=True, text=True, check=False, timeout=300
        )
    if result.returncode != 0:
        reason = f"npm ci failed:\n{result.stdout}\n{result.stderr}"
        raise PeerFailed(reason)
    return _SOURCES
