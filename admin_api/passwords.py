"""Passwords: argon2id, and the delay that grows with wrong ones."""

from datetime import timedelta
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MINIMUM_LENGTH = 8
"""NIST SP 800-63B §5.1.1.2."""

MAXIMUM_LENGTH = 1024
"""So that nobody has us hash a novel."""

_FREE_ATTEMPTS = 5
_FIRST_DELAY_S = 2
_LONGEST_DELAY_S = 900
# RFC 9106 §4, the second recommended option: 64 MiB, three passes.
_HASHER = PasswordHasher()
_AT_ONCE = BoundedSemaphore(4)
"""Anybody may have a password checked: so many threads at once take 64 MiB each, no more."""
_NOBODYS = (
    "$argon2id$v=19$m=65536,t=3,p=4$I9uO5kGWgubUe862STuS4w"
    "$FYM1TM0SRTO5LRTJ0PXofwEXXh40ECpcp+jpFhX0CYU"
)
"""Of 32 random bytes that nobody kept; verifying against it takes as long as against a person's."""


def hashed(password: str) -> str:
    """Return the digest of a password, with its parameters and salt."""
    return _HASHER.hash(password)


def matches(password_hash: str | None, password: str) -> bool:
    """Tell whether a password has this digest; where there is none, take as long to say no."""
    try:
        with _AT_ONCE:
            return _HASHER.verify(password_hash or _NOBODYS, password)
    except (VerificationError, InvalidHashError):
        return False


def lock_time(failed_attempts: int) -> timedelta | None:
    """Return how long an account stays shut after this many wrong passwords in a row."""
    beyond = failed_attempts - _FREE_ATTEMPTS
    if beyond < 0:
        return None
    return timedelta(seconds=min(_FIRST_DELAY_S * 2 ** min(beyond, 16), _LONGEST_DELAY_S))
