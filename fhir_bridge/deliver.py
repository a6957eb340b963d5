"""Bring one signed report to where it belongs, so that any number of tries leave one report."""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fhir_bridge.bundle import SentBundle
from fhir_bridge.client import EhrRefused, EhrUnavailable, FhirClient
from fhir_bridge.codes import VERSION_TAG_SYSTEM
from fhir_bridge.signed_report import SignedReport
from fhir_bridge.splitting import located, split
from message_contracts.delivery import ResourceOutcome

Resource = dict[str, Any]
Entry = dict[str, Any]

_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})$")


def to_server(
    client: FhirClient, report: SignedReport, bundle: SentBundle
) -> tuple[ResourceOutcome, ...]:
    """Have the EHR hold this version of the report, once, and return what it holds.

    Looks before it writes. After a crash or a lost reply the version is there already, whole, and
    nothing is written. A later version is never overwritten by an earlier one that comes late.

    Raises
    ------
    EhrUnavailable
        Try again later.
    EhrRefused
        Trying again cannot help.
    """
    [entry] = [it for it in bundle.resource["entry"] if _kind(it) == "DiagnosticReport"]
    found = _only(client, _condition(entry))
    if found is None:
        return _transact(client, bundle.resource)
    there = _newest_version(found, report)
    if there > report.version:
        status = f"200 superseded by version {there}"
        outcome = ResourceOutcome(
            resource_type="DiagnosticReport", status=status, server_id=found["id"]
        )
        return (outcome,)
    if there == report.version and (held := _held(client, report, bundle)):
        return held
    return _transact(client, _replacing(bundle.resource, entry, found))


def _transact(client: FhirClient, bundle: Resource) -> tuple[ResourceOutcome, ...]:
    """Have the EHR take a Bundle, the report last where it is too large for one transaction."""
    before, last = split(bundle)
    # Patient and study are in every part: told once, as they became there first.
    became: dict[str, ResourceOutcome] = {}
    places: dict[str, str] = {}
    for finding, part in before.items():
        outcomes = _became(client, part)
        became = outcomes | became
        [condition] = [_condition(it) for it in part["entry"] if it["fullUrl"] == finding]
        server_id = outcomes[finding].server_id
        places[finding] = f"Observation/{server_id}" if server_id else condition
    return tuple((_became(client, located(last, places)) | became).values())


def _became(client: FhirClient, bundle: Resource) -> dict[str, ResourceOutcome]:
    """Return what became of each entry, by its URL in the Bundle: an EHR need not tell its own."""
    urls = (str(entry["fullUrl"]) for entry in bundle["entry"])
    return dict(zip(urls, client.transact(bundle), strict=True))


def _kind(entry: Entry) -> str:
    return str(entry["resource"]["resourceType"])


def _condition(entry: Entry) -> str:
    """Return the search that finds what an entry makes or updates."""
    request = entry["request"]
    if request["method"] == "PUT":
        return str(request["url"])
    return f"{request['url']}?{request['ifNoneExist']}"


def _only(client: FhirClient, condition: str) -> Resource | None:
    found = client.search(condition)
    if len(found) > 1:
        kind = condition.partition("?")[0]
        reason = f"the EHR holds {len(found)} {kind} of this case; merge them and replay"
        outcome = ResourceOutcome(resource_type=kind, status="412 duplicate")
        raise EhrRefused(reason, (outcome,), "")
    return found[0] if found else None


def _newest_version(resource: Resource, report: SignedReport) -> int:
    """Return the newest version of this case that has written to a resource; 0 if none.

    Some servers keep earlier tags when a resource is updated.
    """
    prefix = f"{report.case_id}.v"
    versions = [
        int(code.removeprefix(prefix))
        for tag in resource.get("meta", {}).get("tag", [])
        if tag.get("system") == VERSION_TAG_SYSTEM
        and (code := str(tag.get("code", ""))).startswith(prefix)
        and code.removeprefix(prefix).isdigit()
    ]
    return max(versions, default=0)


def _held(
    client: FhirClient, report: SignedReport, bundle: SentBundle
) -> tuple[ResourceOutcome, ...]:
    """Return what the EHR holds of this very version; empty where something is missing.

    What is only created where it is missing (Patient, ImagingStudy, Device) is known by the
    references to it: a patient's identifier does not belong into a URL.
    """
    referred: set[tuple[str, str]] = set()
    outcomes = []
    for entry in bundle.resource["entry"]:
        if _kind(entry) in {"Patient", "ImagingStudy", "Device"}:
            continue
        found = _only(client, _condition(entry))
        if found is None or _newest_version(found, report) != report.version:
            return ()
        referred |= set(_references(found))
        outcomes.append(_outcome(_kind(entry), str(found["id"])))
    return (*(_outcome(*each) for each in sorted(referred)), *outcomes)


def _outcome(kind: str, server_id: str) -> ResourceOutcome:
    return ResourceOutcome(resource_type=kind, status="200", server_id=server_id)


def _references(resource: Resource) -> Iterator[tuple[str, str]]:
    """Yield type and id of what a resource refers to: subject, study and device."""
    references = [
        resource.get("subject", {}),
        resource.get("device", {}),
        *resource.get("imagingStudy", []),
    ]
    for reference in references:
        match = _RELATIVE.search(str(reference.get("reference", "")))
        if match:
            yield match[1], match[2]


def _replacing(bundle: Resource, entry: Entry, found: Resource) -> Resource:
    """Return the Bundle with the report put in the place of the one found, if still unchanged."""
    request = {"method": "PUT", "url": f"DiagnosticReport/{found['id']}"}
    version_id = found.get("meta", {}).get("versionId")
    if version_id:
        request["ifMatch"] = f'W/"{version_id}"'
    replaced = entry | {"request": request, "resource": entry["resource"] | {"id": found["id"]}}
    return bundle | {"entry": [replaced if it is entry else it for it in bundle["entry"]]}


def to_folder(
    folder: Path, report: SignedReport, bundle: SentBundle, pdf: bytes
) -> tuple[ResourceOutcome, ...]:
    """Write Bundle and PDF of a report durably, each whole or not at all.

    Raises
    ------
    EhrUnavailable
        The folder cannot be written to.
    """
    name = f"{report.case_id}-v{report.version}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{name}.pdf", pdf)
        _write(folder / f"{name}.json", bundle.json)
    except OSError as error:
        reason = f"the ehr-outbox folder cannot be written to: {type(error).__name__}"
        raise EhrUnavailable(reason) from error
    return tuple(
        ResourceOutcome(resource_type=_kind(it), status="201 in ehr-outbox")
        for it in bundle.resource["entry"]
    )


def _write(path: Path, data: bytes) -> None:
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
