"""Settings of the listener."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from service_runtime.settings import DicomTlsSettings, RetentionSettings, ServiceSettings

MEBIBYTE = 1024 * 1024


class ReceptionSettings(RetentionSettings):
    """What holds for whatever is received, over DIMSE or over HTTP."""

    ae_title: Annotated[
        str, StringConstraints(strip_whitespace=True, pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$")
    ] = Field(default="COUNTERSIGN", description="AE title of this installation.")
    quiet_period_s: float = Field(
        default=30,
        gt=0,
        le=86_400,
        description=(
            "A version of a study is complete when no instance of it has arrived for so many "
            "seconds."
        ),
    )


class ListenerSettings(ServiceSettings, ReceptionSettings, DicomTlsSettings):
    """Where and how instances are received."""

    dicom_host: str = Field(
        default="127.0.0.1", description="Address on which DICOM associations are accepted."
    )
    dicom_port: int = Field(
        default=11112,
        ge=0,
        le=65535,
        description="Port on which DICOM associations are accepted. 0 takes a free port.",
    )
    dicom_plain: bool = Field(
        default=True,
        description=(
            "Whether associations are accepted in the clear; without, by DICOM over TLS only."
        ),
    )
    dicom_tls_port: int = Field(
        default=2762,
        ge=0,
        le=65535,
        description=(
            "Port on which associations are accepted by DICOM over TLS, once its certificate, key "
            "and authorities are set. 0 takes a free port."
        ),
    )
    max_associations: int = Field(
        default=64,
        ge=1,
        le=4096,
        description=(
            "More associations than this at one time are rejected; an application entity may be "
            "listed with fewer for itself."
        ),
    )
    receiving_processes: int = Field(
        default=2, ge=1, le=64, description="Processes that share the work of receiving."
    )
    acse_timeout_s: float = Field(
        default=30,
        gt=0,
        description=(
            "A connection that has not asked for an association in so many seconds, the TLS "
            "handshake included, is closed."
        ),
    )
    association_idle_timeout_s: float = Field(
        default=300,
        gt=0,
        description="An association on which nothing is asked for is aborted after this.",
    )
    completion_deadline_s: float = Field(
        default=14_400,
        gt=0,
        description=(
            "A version of a study is complete so many seconds after its first instance, whoever "
            "may still be sending."
        ),
    )
    dimse_timeout_s: float = Field(
        default=60,
        gt=0,
        description="A sender that falls silent in the middle of a message is cut off after this.",
    )

    @model_validator(mode="after")
    def _something_is_listened_on(self) -> Self:
        if not self.dicom_plain and self.dicom_tls_certificate is None:
            raise ValueError(
                "COUNTERSIGN_DICOM_PLAIN: without it associations are accepted by TLS only, which "
                "needs COUNTERSIGN_DICOM_TLS_CERTIFICATE, _KEY and _AUTHORITIES"
            )
        return self
