"""The key that signs access tokens: set by the site, or made once and kept."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from service_runtime.access_tokens import KEY_BYTES
from service_runtime.errors import PermanentError


class UnusableTokenKey(PermanentError):
    """The file that should hold the key holds none."""


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
