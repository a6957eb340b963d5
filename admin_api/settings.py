"""What ``admin_api`` is told at its start."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from service_runtime.access_tokens import KEY_BYTES
from service_runtime.settings import DestinationSettings, ServiceSettings, StoreSettings


class ApiSettings(ServiceSettings, StoreSettings, DestinationSettings):
    """The settings of ``admin_api``."""

    http_host: str = Field(
        default="127.0.0.1", description="Address on which the API listens; loopback by default."
    )
    http_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the API; 0 takes a free one."
    )
    token_key: SecretStr = Field(
        default=SecretStr(""),
        description=(
            f"Key that signs access tokens, at least {KEY_BYTES} bytes. By default one is made "
            "once and kept in the data folder; several API processes need the same one."
        ),
    )
    token_lifetime_s: int = Field(
        default=900, ge=30, le=86400, description="How long an access token is good for."
    )

    @model_validator(mode="after")
    def _key_is_long_enough(self) -> Self:
        key = self.token_key.get_secret_value()
        if key and len(key.encode()) < KEY_BYTES:
            raise ValueError(f"COUNTERSIGN_TOKEN_KEY: at least {KEY_BYTES} bytes are needed")
        return self
