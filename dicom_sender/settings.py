"""Settings of the sender."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from message_contracts.destination import PacsDestination
from service_runtime.settings import ServiceSettings, StoreSettings


class SenderSettings(ServiceSettings, StoreSettings):
    """Where instances may go, and in whose name."""

    ae_title: Annotated[
        str, StringConstraints(strip_whitespace=True, pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$")
    ] = Field(default="COUNTERSIGN", description="AE title of this installation.")
    pacs_destinations: tuple[PacsDestination, ...] = Field(
        default=(),
        description=(
            "PACS that results are attached to, a JSON list of objects with name, ae_title, host, "
            "port and release (REPORT_READY, DOCTOR_VERIFIED or AI_ANALYZED)."
        ),
    )
    pacs_timeout_s: float = Field(
        default=60,
        gt=0,
        description="A PACS that says nothing for so long is taken to be away.",
    )

    @model_validator(mode="after")
    def _names_are_told_apart(self) -> Self:
        names = [destination.name for destination in self.pacs_destinations]
        if len(set(names)) != len(names):
            raise ValueError("COUNTERSIGN_PACS_DESTINATIONS: two destinations have the same name")
        return self
