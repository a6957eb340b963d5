"""What an EHR holds of a Bundle."""

import re
from collections.abc import Iterator
from typing import Any

from fhir_bridge.client import EhrRefused, FhirClient
from fhir_bridge.matching import newest_version
from fhir_bridge.signed_report import SignedReport
from fhir_bridge.splitting import kind
from message_contracts.delivery import ResourceOutcome

Resource = dict[str, Any]
Entry = dict[str, Any]
Found = dict[str, Resource | None]
"""What the EHR holds of a Bundle's updates, by the URL of the entry; None where it holds none."""

_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})$")


def look_up(client: FhirClient, bundle: Resource) -> Found:
    """Return what the EHR holds of the resources that every version updates, the report first.

    Raises
    ------
    EhrUnavailable
        Try again later.
    EhrRefused
        The EHR does not search so, or holds several of one resource.
    """
    updates = [entry for entry in bundle["entry"] if entry["request"]["method"] == "PUT"]
    updates.sort(key=lambda entry: kind(entry) != "DiagnosticReport")
    return {entry["fullUrl"]: only(client, condition(entry)) for entry in updates}


def condition(entry: Entry) -> str:
    """Return the search that finds what an entry makes or updates."""
    request = entry["request"]
    if request["method"] == "PUT":
        return str(request["url"])
    return f"{request['url']}?{request['ifNoneExist']}"


def only(client: FhirClient, condition: str) -> Resource | None:
    """Return the one resource that a search finds.

    Raises
    ------
    EhrUnavailable
        Try again later.
    EhrRefused
        The EHR does not search so, or holds several.
    """
    found = client.search(condition)
    if len(found) > 1:
        resource_type = condition.partition("?")[0]
        reason = f"the EHR holds {len(found)} {resource_type} of this case; merge them and replay"
        outcome = ResourceOutcome(resource_type=resource_type, status="412 duplicate")
        raise EhrRefused(reason, (outcome,), "")
    return found[0] if found else None


def held(
    client: FhirClient, report: SignedReport, part: Resource, found: Found
) -> dict[str, ResourceOutcome]:
    """Return what the EHR holds of this very version; empty where something is missing.

    It is told by the URL of the entry. What is only created where it is missing (Patient,
    ImagingStudy, Device) is known by the references to it: a patient's identifier does not belong
    into a URL.

    Raises
    ------
    EhrUnavailable
        Try again later.
    EhrRefused
        The EHR does not search so, or holds several of one resource.
    """
    outcomes: dict[str, ResourceOutcome] = {}
    for entry in part["entry"]:
        if kind(entry) in {"Patient", "ImagingStudy", "Device"}:
            continue
        url = entry["fullUrl"]
        there = found[url] if url in found else only(client, condition(entry))
        if there is None or newest_version(there, report) != report.version:
            return {}
        if len(there.get("result", [])) < len(entry["resource"].get("result", [])):
            # Sent in parts, the report names the findings as they come.
            return {}
        for own, reference in zip(_references(entry["resource"]), _references(there), strict=False):
            if match := _RELATIVE.search(reference):
                outcomes[own] = _outcome(match[1], match[2])
        outcomes[url] = _outcome(kind(entry), str(there["id"]))
    return outcomes


def _outcome(kind: str, server_id: str) -> ResourceOutcome:
    return ResourceOutcome(resource_type=kind, status="200", server_id=server_id)


def _references(resource: Resource) -> Iterator[str]:
    """Yield the references to what it is about: subject, device and study."""
    references = [
        resource.get("subject", {}),
        resource.get("device", {}),
        *resource.get("imagingStudy", []),
    ]
    yield from (str(it["reference"]) for it in references if "reference" in it)
