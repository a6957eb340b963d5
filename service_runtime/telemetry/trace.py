"""W3C Trace Context: which journey, and which step of it, a log line belongs to."""

from __future__ import annotations

import re
import secrets

_TRACEPARENT = re.compile(r"^00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})$")


def begin() -> str:
    """Return the ``traceparent`` of a journey that begins here."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def continued(traceparent: str | None) -> str:
    """Return the ``traceparent`` of a journey's next step; a malformed one begins anew."""
    match = _TRACEPARENT.match(traceparent or "")
    if match is None:
        return begin()
    return f"00-{match[1]}-{secrets.token_hex(8)}-{match[2]}"


def ids_of(traceparent: str) -> dict[str, str]:
    """Return ``trace_id`` and ``span_id``, as a log line carries them."""
    _, trace_id, span_id, _ = traceparent.split("-")
    return {"trace_id": trace_id, "span_id": span_id}
