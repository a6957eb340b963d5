"""Settings of the listener."""

from typing import Annotated

from pydantic import Field, StringConstraints

from service_runtime.settings import RetentionSettings, ServiceSettings

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


class ListenerSettings(ServiceSettings, ReceptionSettings):
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
    max_associations: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="More associations than this at one time are rejected.",
    )
    receiving_processes: int = Field(
        default=2, ge=1, le=64, description="Processes that share the work of receiving."
    )
    acse_timeout_s: float = Field(
        default=30,
        gt=0,
        description="A connection that does not ask for an association is closed after this.",
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
