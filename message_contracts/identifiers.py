"""Identifiers as messages carry them, bound as PS3.5 binds them or a little wider."""

import re
from typing import Annotated
from uuid import UUID, uuid5

from pydantic import Field, StringConstraints

_UID = r"[\x21-\x7e]{1,64}"
_IS_UID = re.compile(_UID).fullmatch

DicomUid = Annotated[str, StringConstraints(pattern=f"^{_UID}$")]
"""A UID as a peer sent it: at most 64 printable characters without a space.

Wider than PS3.5 §9.1 (digits and dots) on purpose: a study whose UID is malformed is still a study,
and is kept and found under the UID it came with.
"""

AETitle = Annotated[str, StringConstraints(pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$")]
"""VR AE (PS3.5 §6.2): at most 16 characters, no backslash, no control character."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A digest in lower-case hexadecimal."""

Digest = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{32}|[0-9a-f]{64})$")]
"""XXH3-128 of a data set in lower-case hexadecimal; of one kept by an earlier release SHA-256."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]

NAMESPACE = UUID("7d3f4c2a-5c1e-5b0e-9a56-0c8f6b1d2e34")
"""Every id that we derive from another lies in this namespace (RFC 9562 §5.5)."""


def derived_id(*parts: object) -> UUID:
    """Return the id that these parts always have, so that doing a thing twice names it once."""
    return uuid5(NAMESPACE, "\x1f".join(str(part) for part in parts))


def is_uid(text: str) -> bool:
    """Whether a message may carry this as a `DicomUid`."""
    return _IS_UID(text) is not None


def case_id_of(study_instance_uid: str) -> UUID:
    """Return the id of the one case that a study is."""
    return derived_id("case", study_instance_uid)


def derived_uid(*parts: object) -> str:
    """Return the DICOM UID that these parts always have, under the root 2.25 (PS3.5 §B.2)."""
    return f"2.25.{derived_id(*parts).int}"
