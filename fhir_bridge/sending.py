"""Send a Bundle so that nothing is overwritten that has changed since it was looked up."""

from typing import Any

from fhir_bridge.client import EhrRefused, EhrUnavailable, FhirClient
from fhir_bridge.matching import newest_version
from fhir_bridge.signed_report import SignedReport
from fhir_bridge.splitting import kind, located, split
from message_contracts.delivery import ResourceOutcome

Resource = dict[str, Any]
Entry = dict[str, Any]
Found = dict[str, Resource | None]
"""What the EHR holds of a Bundle's updates, by the URL of the entry; None where it holds none."""


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


def send(
    client: FhirClient, report: SignedReport, bundle: Resource, found: Found
) -> tuple[ResourceOutcome, ...]:
    """Have the EHR take a Bundle, and return what became of each entry.

    What was found is updated if it is still as it was found; what was not found is made if it is
    still not there. A Bundle too large for one transaction is sent in parts, and each depends on
    the report: where another version has come in between, the parts after it are not taken.

    Raises
    ------
    EhrUnavailable
        Try again later, from looking it up on.
    EhrRefused
        Trying again cannot help. It tells what was taken before, too.
    """
    became: dict[str, ResourceOutcome] = {}
    places: dict[str, str] = {}
    for index, part in enumerate(split(bundle)):
        urls = [str(entry["fullUrl"]) for entry in part["entry"]]
        try:
            if index:
                found = found | _report_again(client, report, part)
            outcomes = client.transact(located(_as_found(part, found), places))
        except EhrRefused as refusal:
            told = dict(zip(urls, refusal.outcomes, strict=False)) | became
            raise EhrRefused(str(refusal), _told(bundle, told), refusal.answer) from refusal
        for entry, outcome in zip(part["entry"], outcomes, strict=True):
            url = str(entry["fullUrl"])
            if url in found and found[url] is None and outcome.status == "200":
                raise EhrUnavailable(f"another {kind(entry)} of this case was made meanwhile")
            # Patient, study and report are in every part: told as they became there first.
            became.setdefault(url, outcome)
            if kind(entry) == "Observation":
                own = f"Observation/{outcome.server_id}"
                places[url] = own if outcome.server_id else condition(entry)
    return tuple(became.values())


def _report_again(client: FhirClient, report: SignedReport, part: Resource) -> Found:
    [entry] = [it for it in part["entry"] if kind(it) == "DiagnosticReport"]
    there = only(client, condition(entry))
    if there is None or newest_version(there, report) != report.version:
        raise EhrUnavailable("another version of the report has come between the parts of this one")
    return {entry["fullUrl"]: there}


def _as_found(part: Resource, found: Found) -> Resource:
    return part | {"entry": [_if_as_found(entry, found) for entry in part["entry"]]}


def _if_as_found(entry: Entry, found: Found) -> Entry:
    """Return an entry that takes the place of what was found only if that is still unchanged."""
    if entry["fullUrl"] not in found:
        return entry
    there = found[entry["fullUrl"]]
    if there is None:
        resource_type, _, query = condition(entry).partition("?")
        request = {"method": "POST", "url": resource_type, "ifNoneExist": query}
        return entry | {"request": request}
    request = {"method": "PUT", "url": f"{kind(entry)}/{there['id']}"}
    version_id = there.get("meta", {}).get("versionId")
    if version_id:
        request["ifMatch"] = f'W/"{version_id}"'
    return entry | {"request": request, "resource": entry["resource"] | {"id": there["id"]}}


def _told(bundle: Resource, told: dict[str, ResourceOutcome]) -> tuple[ResourceOutcome, ...]:
    return tuple(
        told.get(entry["fullUrl"])
        or ResourceOutcome(resource_type=kind(entry), status="not stored")
        for entry in bundle["entry"]
    )
