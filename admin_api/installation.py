"""What every request is answered from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from imaging_store.instances import InstanceStore
from imaging_store.retention import Retention, Room
from service_runtime.access_tokens import TokenAuthority
from service_runtime.database import Database
from service_runtime.health import Check
from workflow_engine.commands import Desk


@dataclass(frozen=True)
class Api:
    """The installation that one API process stands before."""

    database: Database
    store: InstanceStore
    authority: TokenAuthority
    desk: Desk
    clock: Callable[[], datetime]
    token_lifetime_s: int
    retention: Retention
    room: Callable[[], Room]
    """How much there is for instances, and is left."""
    checks: Mapping[str, Check]
    """What ``/health/ready`` asks."""


def api_of(request: Request) -> Api:
    """Return what the application was made with."""
    api = request.app.state.api
    if not isinstance(api, Api):
        raise TypeError("the application was made without its installation")
    return api


ApiDependency = Annotated[Api, Depends(api_of)]
