"""A Bundle in parts, where it has more entries than one widely used engine takes at once. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

MOST_ENTRIES = 8
"""Medplum takes no more in a transaction that has conditional entries."""

_SHARED = frozenset({"Patient", "ImagingStudy"})
"""What every finding refers to: each part has them."""

Resource = dict[str, Any]


def split(bundle: Resource) -> tuple[dict[str, Resource], Resource]:
    """Return what is to be sent before, by the URL of its finding, and what is to be sent last.

    The findings beside the first go before, each with all that it refers to and the Provenance
    that tells of it. Each part is conditional like the whole: sent again, it makes nothing twice.
    What goes last has the report and refers to findings that it does not hold; see `located`.
    """
    entries = {str(entry["fullUrl"]): entry for entry in bundle["entry"]}
    findings = [url for url, entry in entries.items() if _kind(entry) == "Observation"]
    if len(entries) <= MOST_ENTRIES or len(findings) <= 1:
        return {}, bundle
    before: dict[str, Resource] = {}
    moved: set[str] = set()
    for finding in findings[1:]:
        told_by = {
            url
            for url, entry in entries.items()
            if _kind(entry) == "Provenance"
            and [each["reference"] for each in entry["resource"]["target"]] == [finding]
        }
        needed = {finding, *told_by}
        for url in (finding, *told_by):
            needed |= set(_references(entries[url]["resource"])) & entries.keys()
        part = [entry for url, entry in entries.items() if url in needed]
        before[finding] = bundle | {"entry": part}
        moved |= {url for url in needed if _kind(entries[url]) not in _SHARED}
    last = [entry for url, entry in entries.items() if url not in moved]
    return before, bundle | {"entry": last}


def located(bundle: Resource, places: Mapping[str, str]) -> Resource:
    """Return a Bundle whose references name the places of what was sent before."""
    found: Resource = _located(bundle, places)
    return found


def _kind(entry: Resource) -> str:
    return str(entry["resource"]["resourceType"])


def _references(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _references(each)
    elif isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for each in value.values():
            yield from _references(each)


def _located(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_located(each, places) for each in value]
    if not isinstance(value, dict):
        return value
    replaced = {name: _located(each, places) for name, each in value.items()}
    if replaced.get("reference") in places:
        replaced["reference"] = places[replaced["reference"]]
    return replaced
