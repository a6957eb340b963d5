"""Who asks: the account behind the bearer token (RFC 6750) of a request, as it is now."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from service_runtime.access_tokens import InvalidToken, TokenAuthority
from service_runtime.problem_details import Problem


class Account(Protocol):
    """What decides whether the tokens of a user are still worth something."""

    @property
    def disabled_at(self) -> datetime | None:
        """When the account was shut, if it was."""

    @property
    def token_generation(self) -> int:
        """Raised when password or role change."""


A = TypeVar("A", bound=Account)


def account_of_token(
    token: str | None,
    authority: TokenAuthority,
    find: Callable[[UUID], A | None],
    now: datetime,
) -> A:
    """Return the account that a token was issued to, as ``find`` knows it now.

    Raises
    ------
    Problem
        401 without a valid token, or where the account was shut or changed since it was issued.
    """
    if token is None:
        raise unauthorized("log in first: a bearer token is needed")
    try:
        verified = authority.verify(token, now)
        account = find(UUID(verified.user_id))
    except (InvalidToken, ValueError) as error:
        detail = str(error) if isinstance(error, InvalidToken) else "access token: not a user's"
        raise unauthorized(detail) from None
    if account is None or account.disabled_at is not None:
        raise unauthorized("the account is closed")
    if account.token_generation != verified.generation:
        raise unauthorized("the account has changed: log in again")
    return account


def unauthorized(detail: str) -> Problem:
    """Return the problem of a request whose token is not good enough."""
    return Problem(401, "not-signed-in", detail, headers={"WWW-Authenticate": "Bearer"})
