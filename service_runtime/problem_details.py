"""Problem details (RFC 9457): every error of an HTTP API in one form, without patient data."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service_runtime.errors import TransientError
from service_runtime.telemetry import log

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
E = TypeVar("E", bound=Exception)
_LOG = structlog.get_logger()


class Problem(Exception):
    """An error that an HTTP client is to see.

    Parameters
    ----------
    status
        The HTTP status.
    type_
        The last part of the problem's type URI, such as ``wrong-stage``: what programs tell
        problems apart by.
    detail
        What is wrong here and what helps, for a person.
    extension
        Further members, for programs.
    """

    def __init__(
        self,
        status: int,
        type_: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extension: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.type = type_
        self.detail = detail
        self.headers = dict(headers or {})
        self.extension = dict(extension or {})

    def response(self) -> JSONResponse:
        """Return the answer that carries this problem."""
        return JSONResponse(
            {
                **self.extension,
                "type": f"urn:countersign:problem:{self.type}",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
            },
            status_code=self.status,
            media_type=MEDIA_TYPE,
            headers=self.headers,
        )


def answer_with_problems(app: FastAPI) -> None:
    """Have ``app`` answer every error with problem details."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(TransientError, _on_transient_error)
    app.add_exception_handler(Exception, _on_unforeseen)


async def _on_problem(_request: Request, error: Exception) -> JSONResponse:
    return _as(Problem, error).response()


async def _on_http_exception(_request: Request, error: Exception) -> JSONResponse:
    raised = _as(HTTPException, error)
    phrase = HTTPStatus(raised.status_code).phrase
    type_ = phrase.lower().replace(" ", "-")
    detail = raised.detail or phrase
    return Problem(raised.status_code, type_, detail, headers=raised.headers).response()


async def _on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    # Field and reason; never the value, which may be a password or a patient's.
    faults = [
        {"field": ".".join(str(part) for part in fault["loc"]), "reason": fault["msg"]}
        for fault in _as(RequestValidationError, error).errors()
    ]
    named = ", ".join(fault["field"] for fault in faults)
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return Problem(
        status, "invalid-request", f"at fault: {named}", extension={"errors": faults}
    ).response()


async def _on_transient_error(_request: Request, error: Exception) -> JSONResponse:
    _LOG.warning("request.unavailable", exc_info=error)
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        "something that this needs is away; nothing was changed that was not answered: try again",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    ).response()


async def _on_unforeseen(_request: Request, error: Exception) -> JSONResponse:
    _LOG.error("request.failed", error=log.describe(error), exc_info=error)
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", "a fault of ours; it has been logged"
    ).response()


def _as(expected: type[E], error: Exception) -> E:
    if not isinstance(error, expected):
        raise TypeError from error
    return error
