"""Where results may go: what ``COUNTERSIGN_PACS_DESTINATIONS`` lists."""

from datetime import time
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from message_contracts.case import Release
from message_contracts.delivery import EHR
from message_contracts.identifiers import AETitle, DicomUid


def _not_the_ehr(name: str) -> str:
    if name.upper() == EHR:
        raise ValueError(f"{EHR} is the name of the destination that reports go to")
    return name


class DimsePriority(StrEnum):
    """Priority (0000,0700) of what is sent."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


def _daily_window(text: str) -> str:
    begin, _, end = text.partition("-")
    try:
        is_empty = time.fromisoformat(begin) == time.fromisoformat(end)
    except ValueError:
        is_empty = True
    if is_empty:
        raise ValueError("not HH:MM-HH:MM, such as 20:00-06:00")
    return text


DailyWindow = Annotated[
    str, StringConstraints(pattern=r"^\d\d:\d\d-\d\d:\d\d$"), AfterValidator(_daily_window)
]
"""A span of every day, such as ``20:00-06:00``; it may go over midnight."""


class DestinationRetry(BaseModel):
    """When a destination that failed is tried again, and how often in all; by default for a day."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_delay_s: float = Field(default=2, gt=0)
    multiplier: float = Field(default=2, ge=1)
    cap_s: float = Field(default=600, gt=0)
    attempts: int = Field(default=150, ge=1)


class PacsDestination(BaseModel):
    """One PACS that results are attached to, and from which status on.

    ``workflow_engine`` decides by it when results leave, ``dicom_sender`` where to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[
        str,
        Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$"),
        AfterValidator(_not_the_ehr),
    ]
    """What messages, pages and metrics call it."""

    ae_title: AETitle
    """The called AE title."""

    host: str = Field(min_length=1, max_length=253)
    port: int = Field(ge=1, le=65535)
    release: Release = Release.REPORT_READY
    tls: bool = False
    """By DICOM TLS, with the installation's certificate."""

    transfer_syntaxes: tuple[DicomUid, ...] = ()
    """What to encode in where an instance cannot go as it is stored, the most wanted first."""

    priority: DimsePriority = DimsePriority.MEDIUM
    window: DailyWindow | None = None
    """When it may be sent to, in the site's time zone; ``None``: at any time."""

    retry: DestinationRetry = DestinationRetry()
    parametric_map: bool = False
    """Send the heat map of CT and MR as a Parametric Map too (PS3.3 §A.75)."""

    commitment: bool = False
    """Ask for Storage Commitment (PS3.4 Annex J) of what it has taken."""
