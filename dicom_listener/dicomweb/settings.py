"""Settings of the DICOMweb process."""

from typing import Annotated

from pydantic import Field, StringConstraints

from dicom_listener.settings import ReceptionSettings
from service_runtime.settings import ServiceSettings
from service_runtime.token_key import TokenKeySettings


class DicomWebSettings(ServiceSettings, ReceptionSettings, TokenKeySettings):
    """Where DICOMweb is answered, and how what is posted is received."""

    dicomweb_host: str = Field(
        default="127.0.0.1", description="Address on which DICOMweb listens; loopback by default."
    )
    dicomweb_port: int = Field(
        default=8081,
        ge=0,
        le=65535,
        description="Port of DICOMweb, under the path /dicom-web; 0 takes a free one.",
    )
    dicomweb_origins: tuple[
        Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+$")], ...
    ] = Field(
        default=(),
        description=(
            "Web origins whose pages may ask DICOMweb (CORS), a JSON list such as "
            '["https://viewer.example.org"]; none by default.'
        ),
    )
    dicomweb_max_post_mib: int = Field(
        default=8192, ge=1, description="A longer STOW-RS request is refused (413)."
    )
