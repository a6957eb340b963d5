"""Bring one signed report to where it belongs, so that any number of tries leave one report."""

import os
import tempfile
from pathlib import Path
from typing import Any

from fhir_bridge.bundle import SentBundle
from fhir_bridge.client import EhrUnavailable, FhirClient
from fhir_bridge.holding import Found, look_up
from fhir_bridge.matching import newest_version
from fhir_bridge.sending import send
from fhir_bridge.signed_report import SignedReport
from fhir_bridge.splitting import is_withdrawn, kind
from message_contracts.delivery import ResourceOutcome

Resource = dict[str, Any]


def to_server(
    client: FhirClient, report: SignedReport, bundle: SentBundle
) -> tuple[ResourceOutcome, ...]:
    """Have the EHR hold this version of the report, once, and return what it holds.

    Looks before it writes. After a crash or a lost reply the version is there already, whole, and
    nothing is written. A later version is never overwritten by an earlier one that comes late: each
    transaction holds only if what it writes to is still as it was looked up. An EHR that does
    transactions entry by entry holds to that for each entry alone.

    Raises
    ------
    EhrUnavailable
        Try again later.
    EhrRefused
        Trying again cannot help.
    """
    found = look_up(client, bundle.resource)
    wanted = _without_what_was_never_filed(bundle.resource, found)
    versions = [(newest_version(it, report), it) for it in found.values() if it is not None]
    newest, resource = max(versions, key=lambda each: each[0], default=(0, {}))
    if newest > report.version:
        outcome = ResourceOutcome(
            resource_type=resource["resourceType"],
            status=f"200 superseded by version {newest}",
            server_id=resource["id"],
        )
        return (outcome,)
    return send(client, report, wanted, found)


def _without_what_was_never_filed(bundle: Resource, found: Found) -> Resource:
    """Return a Bundle that withdraws only what the EHR holds.

    A report that was signed may never have come there, or not all of it.
    """
    return bundle | {
        "entry": [
            entry
            for entry in bundle["entry"]
            if not is_withdrawn(entry) or found[entry["fullUrl"]] is not None
        ]
    }


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
        ResourceOutcome(resource_type=kind(it), status="201 in ehr-outbox")
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
