"""Send a Bundle so that nothing is overwritten that has changed since it was looked up."""

from typing import Any

from fhir_bridge.client import EhrRefused, EhrUnavailable, FhirClient
from fhir_bridge.holding import Found, condition, held, only
from fhir_bridge.matching import newest_version
from fhir_bridge.signed_report import SignedReport
from fhir_bridge.splitting import kind, located, split
from message_contracts.delivery import ResourceOutcome

Resource = dict[str, Any]
Entry = dict[str, Any]


def send(
    client: FhirClient, report: SignedReport, bundle: Resource, found: Found
) -> tuple[ResourceOutcome, ...]:
    """Have the EHR take a Bundle, and return what became of each entry.

    What was found is updated if it is still as it was found; what was not found is made if it is
    still not there. A Bundle too large for one transaction is sent in parts, and each depends on
    the report: where another version has come in between, the parts after it are not taken. What
    an earlier try has brought there is not sent again, and every part's report names it.

    Raises
    ------
    EhrUnavailable
        Try again later, from looking it up on.
    EhrRefused
        Trying again cannot help. It tells what was taken before, too.
    """
    became: dict[str, ResourceOutcome] = {}
    places = {
        url: f"Observation/{there['id']}"
        for url, there in found.items()
        if there is not None
        and there["resourceType"] == "Observation"
        and newest_version(there, report) == report.version
    }
    written = False
    parts = split(bundle, places)
    for part in parts:
        urls = [str(entry["fullUrl"]) for entry in part["entry"]]
        try:
            if written:
                found = found | _report_again(client, report, part, found, became)
            if already := held(client, report, part, found):
                became = already | became
                continue
            if part is not parts[-1] and _names_fewer(part, report, found):
                raise EhrUnavailable("the EHR does not find yet what its report names")
            outcomes = client.transact(located(_as_found(part, found), places))
            written = True
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


def _report_again(
    client: FhirClient,
    report: SignedReport,
    part: Resource,
    found: Found,
    became: dict[str, ResourceOutcome],
) -> Found:
    """Return the report as a part has left it: read by its id, for a search may lag behind."""
    entry = _report_of(part)
    url = str(entry["fullUrl"])
    server_id = became[url].server_id or (found[url] or {}).get("id")
    if server_id:
        there = client.read(f"DiagnosticReport/{server_id}")
    else:
        there = only(client, condition(entry))
    if there is None or newest_version(there, report) != report.version:
        raise EhrUnavailable("another version of the report has come between the parts of this one")
    return {url: there}


def _names_fewer(part: Resource, report: SignedReport, found: Found) -> bool:
    """Tell whether a part would take findings of this very version out of the report there."""
    entry = _report_of(part)
    there = found[entry["fullUrl"]]
    if there is None or newest_version(there, report) != report.version:
        return False
    return len(entry["resource"]["result"]) < len(there.get("result", []))


def _report_of(part: Resource) -> Entry:
    entry: Entry
    [entry] = [it for it in part["entry"] if kind(it) == "DiagnosticReport"]
    return entry


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
