"""The key that signs access tokens: set by the site, or made once and kept."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from service_runtime.access_tokens import KEY_BYTES
from service_runtime.errors import PermanentError
from service_runtime.settings import ENV_PREFIX, SiteSettings


class UnusableTokenKey(PermanentError):
    """The file that should hold the key holds none."""


class TokenKeySettings(SiteSettings):
    """Which key; who issues tokens and who checks them read the same setting."""

    token_key: SecretStr = Field(
        default=SecretStr(""),
        description=(
            f"Key that signs access tokens, at least {KEY_BYTES} bytes. By default one is made "
            "once and kept in the data folder; all processes that answer HTTP need the same one."
        ),
    )

    @model_validator(mode="after")
    def _key_is_long_enough(self) -> Self:
        key = self.token_key.get_secret_value()
        if key and len(key.encode()) < KEY_BYTES:
            raise ValueError(f"{ENV_PREFIX}TOKEN_KEY: at least {KEY_BYTES} bytes are needed")
        return self

    def signing_key(self) -> bytes:
        """Return the key as it is set, or else as it is kept.

        Raises
        ------
        UnusableTokenKey
            The file in the data folder is too short to be a key.
        """
        return self.token_key.get_secret_value().encode() or kept_key(self.data_dir)


def kept_key(folder: Path) -> bytes:
    """Return the key in ``folder/token.key``, made where there is none; only its owner reads it.

    Raises
    ------
    UnusableTokenKey
        The file is too short to be a key.
    """
    path = folder / "token.key"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _make(path)
    key = path.read_bytes().strip()
    if len(key) < KEY_BYTES:
        raise UnusableTokenKey(f"{path.name} in the data folder is no key: remove it")
    return key


def _make(path: Path) -> None:
    """Make the file whole or not at all; of two who make it, the first wins."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_hex(KEY_BYTES).encode())
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
