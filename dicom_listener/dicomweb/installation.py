"""What every request is answered from, and who may ask."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dicom_listener.dicomweb.posting import Posting
from imaging_store.accounts import Account, account_by_id
from imaging_store.instances import FileInstanceStore
from message_contracts.case import Stage
from service_runtime.access_tokens import TokenAuthority
from service_runtime.database import Database
from service_runtime.http_authentication import account_of_token
from service_runtime.problem_details import Problem

PREFIX = "/dicom-web"
_BEARER = HTTPBearer(auto_error=False)


@dataclass(frozen=True)
class DicomWeb:
    """The installation that one DICOMweb process stands before."""

    database: Database
    store: FileInstanceStore
    authority: TokenAuthority
    clock: Callable[[], datetime]
    post: Callable[[str, str], Posting]
    """Begins to take what is posted to a study, or to any where its UID is empty; the other text
    is the boundary of its parts."""

    longest_post_bytes: int


def dicomweb_of(request: Request) -> DicomWeb:
    """Return what the application was made with."""
    dicomweb = request.app.state.dicomweb
    if not isinstance(dicomweb, DicomWeb):
        raise TypeError("the application was made without its installation")
    return dicomweb


Web = Annotated[DicomWeb, Depends(dicomweb_of)]


def reader(
    request: Request,
    dicomweb: Web,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> Account:
    """Return who asks; any user may search and retrieve what is offered to their role.

    Raises
    ------
    Problem
        401 without a valid token of an account as it is now.
    """
    account = account_of_token(
        bearer.credentials if bearer else None,
        dicomweb.authority,
        partial(account_by_id, dicomweb.database),
        dicomweb.clock(),
    )
    request.state.user_id = str(account.id)
    return account


Reader = Annotated[Account, Depends(reader)]


def poster(account: Reader) -> Account:
    """Return who posts: an admin, such as the account of a gateway.

    Raises
    ------
    Problem
        403 for any other role.
    """
    if account.role != Stage.ADMIN:
        raise Problem(403, "wrong-role", "only the role admin may store instances")
    return account


Poster = Annotated[Account, Depends(poster)]


def base_url(request: Request) -> str:
    """Return the URL of the service as the client named it."""
    return f"{str(request.base_url).rstrip('/')}{PREFIX}"
