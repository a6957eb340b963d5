"""Every request is logged once: method, route and outcome, never what a person may have typed."""

import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})
_LOG = structlog.get_logger()


class RequestLog:
    """Logs a request when its answer has been sent; answers are kept in no cache.

    The route is a template: neither path nor query stand in the log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer and log (ASGI)."""
        if scope["type"] != "http" or scope["path"] in _QUIET:
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = None

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_noting)
        _LOG.info(
            "request.answered",
            method=scope["method"],
            route=getattr(scope.get("route"), "path", None),
            status_code=status,
            duration_s=round(time.monotonic() - began, 4),
            user_id=scope.get("state", {}).get("user_id"),
        )
