"""Access tokens: JWTs (RFC 9068) that one service issues and any service can verify."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import jwt

from service_runtime.errors import PermanentError

ALGORITHM = "HS256"
"""The only one. A token's own word on its algorithm is never believed."""

TOKEN_TYPE = "at+jwt"  # noqa: S105 - a media type
KEY_BYTES = 32
ISSUER = "countersign"
AUDIENCE = "countersign-api"
"""Of the tokens of every installation; its key tells them apart."""

_LEEWAY = timedelta(seconds=5)
_REQUIRED = ["iss", "aud", "sub", "iat", "exp", "jti", "role"]


class InvalidToken(PermanentError):
    """The token is not one of ours, or has run out; the reason quotes nothing of it."""


@dataclass(frozen=True)
class AccessToken:
    """What a verified token says. Whether the user still has the role, the database says."""

    user_id: str
    role: str
    id: str
    expires_at: datetime
    generation: int = 0
    """Of the user's tokens; the database says which is the last that counts."""


@dataclass(frozen=True)
class TokenAuthority:
    """Issues and verifies the tokens of one installation.

    Raises
    ------
    ValueError
        The key is shorter than 32 bytes.
    """

    key: bytes
    issuer: str
    audience: str

    def __post_init__(self) -> None:
        if len(self.key) < KEY_BYTES:
            raise ValueError(f"the key of access tokens needs at least {KEY_BYTES} bytes")

    def issue(
        self, user_id: str, role: str, now: datetime, lifetime: timedelta, *, generation: int = 0
    ) -> str:
        """Return a token for a user who has just proved who they are."""
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user_id,
            "role": role,
            "gen": generation,
            "iat": now,
            "exp": now + lifetime,
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self.key, algorithm=ALGORITHM, headers={"typ": TOKEN_TYPE})

    def verify(self, token: str, now: datetime) -> AccessToken:
        """Return what the token says.

        Raises
        ------
        InvalidToken
            Wrong signature, algorithm, type, issuer or audience; a claim missing; or run out.
        """
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                self.key,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self.audience,
                # The times are compared below with the time that we are given.
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
            )
            expires_at = datetime.fromtimestamp(claims["exp"], tz=now.tzinfo)
            generation = int(claims.get("gen", 0))
        except (jwt.InvalidTokenError, TypeError, ValueError, OverflowError) as error:
            raise InvalidToken(f"access token: {type(error).__name__}") from None
        if header.get("typ") != TOKEN_TYPE:
            raise InvalidToken("access token: not an access token")
        if expires_at + _LEEWAY < now:
            raise InvalidToken("access token: it has run out; log in again")
        return AccessToken(
            user_id=str(claims["sub"]),
            role=str(claims["role"]),
            id=str(claims["jti"]),
            expires_at=expires_at,
            generation=generation,
        )
