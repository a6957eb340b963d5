"""Where results may go: what ``COUNTERSIGN_PACS_DESTINATIONS`` lists."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from message_contracts.case import Release
from message_contracts.delivery import EHR
from message_contracts.identifiers import AETitle


def _not_the_ehr(name: str) -> str:
    if name.upper() == EHR:
        raise ValueError(f"{EHR} is the name of the destination that reports go to")
    return name


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
