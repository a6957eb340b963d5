"""Settings of the sender."""

from typing import Annotated

from pydantic import Field, StringConstraints

from service_runtime.settings import DestinationSettings, ServiceSettings, StoreSettings


class SenderSettings(ServiceSettings, StoreSettings, DestinationSettings):
    """Where instances may go, and in whose name."""

    ae_title: Annotated[
        str, StringConstraints(strip_whitespace=True, pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$")
    ] = Field(default="COUNTERSIGN", description="AE title of this installation.")
    pacs_timeout_s: float = Field(
        default=60,
        gt=0,
        description="A PACS that says nothing for so long is taken to be away.",
    )
