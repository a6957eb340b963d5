"""Settings of the sender."""

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from service_runtime.settings import (
    ENV_PREFIX,
    DestinationSettings,
    DicomTlsSettings,
    ServiceSettings,
    StoreSettings,
)


class SenderSettings(ServiceSettings, StoreSettings, DestinationSettings, DicomTlsSettings):
    """Where instances may go, and in whose name."""

    ae_title: Annotated[
        str, StringConstraints(strip_whitespace=True, pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$")
    ] = Field(default="COUNTERSIGN", description="AE title of this installation.")
    pacs_timeout_s: float = Field(
        default=60,
        gt=0,
        description="A PACS that says nothing for so long is taken to be away.",
    )
    commitment_wait_s: float = Field(
        default=5,
        ge=0,
        le=300,
        description=(
            "How long an association is kept open for the PACS to report on Storage Commitment; "
            "later reports come to the listener."
        ),
    )

    @model_validator(mode="after")
    def _tls_has_a_certificate(self) -> "SenderSettings":
        for destination in self.pacs_destinations:
            if destination.tls and self.dicom_tls_certificate is None:
                raise ValueError(
                    f"{ENV_PREFIX}PACS_DESTINATIONS: {destination.name}: tls needs "
                    f"{ENV_PREFIX}DICOM_TLS_CERTIFICATE, _KEY and _AUTHORITIES"
                )
        return self
