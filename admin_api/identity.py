"""Who asks: log-in, the token of every request, and the second component of a signature."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from admin_api import passwords, users
from admin_api.installation import Api, ApiDependency
from admin_api.users import User
from message_contracts.case import Stage
from service_runtime.http_authentication import account_of_token, unauthorized
from service_runtime.problem_details import Problem

router = APIRouter(tags=["log-in"])

Password = Annotated[
    str,
    Field(
        min_length=1, max_length=passwords.MAXIMUM_LENGTH, json_schema_extra={"format": "password"}
    ),
]
_BEARER = HTTPBearer(auto_error=False, description="The access token that log-in gives.")


class Credentials(BaseModel):
    """What a person logs in with."""

    email: str = Field(min_length=1, max_length=254, pattern=r"^[^\x00-\x1f\x7f]*$")
    password: Password


class Account(BaseModel):
    """Who has logged in."""

    id: UUID
    email: str
    name: str
    role: Stage


class Token(BaseModel):
    """An access token (RFC 6750)."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - what RFC 6750 calls it
    expires_in: int
    """Seconds."""
    user: Account


@dataclass(frozen=True)
class Confirmation:
    """What a person gives beside their token when they sign."""

    password: str


class ConfirmIdentity(Protocol):
    """Asks the person who signs for their second component again (21 CFR 11.200)."""

    def __call__(self, api: Api, user: User, given: Confirmation) -> str:
        """Return how the component was given, as it is kept with the signature.

        Raises
        ------
        Problem
            401 where it is wrong, 429 after too many wrong ones.
        """


@router.post("/auth/login")
def log_in(credentials: Credentials, api: ApiDependency) -> Token:
    """Exchange e-mail and password for a short-lived access token."""
    now = api.clock()
    user = users.by_email(api.database, credentials.email)
    right = passwords.matches(user.password_hash if user else None, credentials.password)
    try:
        users.note_attempt(api.database, user, right=right, now=now)
    except (users.AccountShut, users.AccountChanged):
        # Not told apart: whether there is such an account is nobody's business.
        raise _not_logged_in() from None
    if user is None or not right or user.disabled_at is not None:
        raise _not_logged_in()
    token = api.authority.issue(
        str(user.id),
        user.role,
        now,
        timedelta(seconds=api.token_lifetime_s),
        generation=user.token_generation,
    )
    account = Account(id=user.id, email=user.email, name=user.printed_name, role=Stage(user.role))
    return Token(access_token=token, expires_in=api.token_lifetime_s, user=account)


def signed_in(
    request: Request,
    api: ApiDependency,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> User:
    """Return who asks, as the database knows them now.

    Raises
    ------
    Problem
        401 without a valid token, or where the account was shut or changed since it was issued.
    """
    user = account_of_token(
        bearer.credentials if bearer else None,
        api.authority,
        partial(users.by_id, api.database),
        api.clock(),
    )
    request.state.user_id = str(user.id)
    return user


SignedIn = Annotated[User, Depends(signed_in)]
"""Any user. Every role there is may sign, so every user may see the results of unsigned cases."""


def signed_in_admin(user: SignedIn) -> User:
    """Return who asks, where that is an admin.

    Raises
    ------
    Problem
        403 where it is somebody else.
    """
    if user.role != Stage.ADMIN:
        raise Problem(403, "wrong-role", "this is for an admin")
    return user


SignedInAdmin = Annotated[User, Depends(signed_in_admin)]
"""Who may change how the installation works."""


def confirm_by_password(api: Api, user: User, given: Confirmation) -> str:
    """Ask for the password again; wrong ones count as they do at log-in."""
    now = api.clock()
    right = passwords.matches(user.password_hash, given.password)
    try:
        users.note_attempt(api.database, user, right=right, now=now)
    except users.AccountShut as shut:
        raise Problem(
            429,
            "locked-out",
            "too many wrong passwords: wait and try again; nothing was changed",
            headers={"Retry-After": str(int((shut.until - now).total_seconds()) + 1)},
        ) from None
    except users.AccountChanged:
        raise unauthorized("the account has changed: log in again") from None
    if not right:
        raise Problem(
            401,
            "wrong-password",
            "the password is wrong; nothing was changed",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return "password"


def _not_logged_in() -> Problem:
    return Problem(
        401,
        "not-logged-in",
        "e-mail or password is wrong, or there were too many wrong passwords: wait and try again",
        headers={"WWW-Authenticate": "Bearer"},
    )
