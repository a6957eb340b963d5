"""What ``admin_api`` is told at its start."""

from pydantic import Field

from service_runtime.settings import DestinationSettings, RetentionSettings, ServiceSettings
from service_runtime.token_key import TokenKeySettings


class ApiSettings(ServiceSettings, RetentionSettings, DestinationSettings, TokenKeySettings):
    """The settings of ``admin_api``."""

    http_host: str = Field(
        default="127.0.0.1", description="Address on which the API listens; loopback by default."
    )
    http_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the API; 0 takes a free one."
    )
    token_lifetime_s: int = Field(
        default=900, ge=30, le=86400, description="How long an access token is good for."
    )
