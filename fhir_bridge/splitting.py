"""A Bundle in parts, where it has more entries than one widely used engine takes at once. Pure."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

MOST_ENTRIES = 8
"""Medplum takes no more in a transaction that has conditional entries."""

_SHARED = frozenset({"Patient", "ImagingStudy"})
"""What every finding refers to: each part has them."""

Resource = dict[str, Any]


def split(bundle: Resource, there: Collection[str] = ()) -> tuple[Resource, ...]:
    """Return the parts of a Bundle in the order in which they are to be sent; often it is one.

    Each part has the report, so that each can be made conditional on the version of it that was
    looked at. The first has all but the findings beside the first, and as many withdrawn ones as
    there is room for. Then come the other withdrawn ones, one by one, then the other findings, each
    with all that it refers to and the Provenance that tells of it. The report of a part names what
    has been sent with it or before, and what is ``there`` from an earlier try; see `located`.
    """
    entries = {str(entry["fullUrl"]): entry for entry in bundle["entry"]}
    if len(entries) <= MOST_ENTRIES:
        return (bundle,)
    findings = [url for url, entry in entries.items() if kind(entry) == "Observation"]
    withdrawn = [url for url in findings if is_withdrawn(entries[url])]
    further = [_with_its_own(url, entries) for url in findings if url not in withdrawn][1:]
    shared = {url for url, entry in entries.items() if kind(entry) in _SHARED}
    first = entries.keys() - set[str]().union(*further, withdrawn) | shared
    room = max(MOST_ENTRIES - len(first), 0)
    late = [_with_its_own(url, entries) for url in withdrawn[room:]]
    [report] = [url for url, entry in entries.items() if kind(entry) == "DiagnosticReport"]
    parts = []
    sent = set(there)
    for urls in (first | set(withdrawn[:room]), *late, *further):
        sent |= urls
        named = entries | {report: _naming(entries[report], sent)}
        part = [entry for url, entry in named.items() if url in urls | {report}]
        parts.append(bundle | {"entry": part})
    return tuple(parts)


def located(bundle: Resource, places: Mapping[str, str]) -> Resource:
    """Return a Bundle whose references name the places of what was sent before."""
    found: Resource = _located(bundle, places)
    return found


def kind(entry: Resource) -> str:
    """Return the type of resource that an entry holds."""
    return str(entry["resource"]["resourceType"])


def is_withdrawn(entry: Resource) -> bool:
    """Tell whether an entry says that a finding is not to be used any more."""
    return bool(entry["resource"].get("status") == "entered-in-error")


def _with_its_own(finding: str, entries: Mapping[str, Resource]) -> set[str]:
    """Return a finding, what it refers to, and the Provenance that tells of it alone."""
    told_by = {
        url
        for url, entry in entries.items()
        if kind(entry) == "Provenance"
        and [each["reference"] for each in entry["resource"]["target"]] == [finding]
    }
    own = {finding, *told_by}
    for url in (finding, *told_by):
        own |= set(_references(entries[url]["resource"])) & entries.keys()
    return own


def _naming(report: Resource, sent: set[str]) -> Resource:
    result = [each for each in report["resource"]["result"] if each["reference"] in sent]
    return report | {"resource": report["resource"] | {"result": result}}


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
