"""The application: every route, every error as problem details, every request logged once."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import FastAPI, Request, Response

from admin_api import (
    application_entities,
    cases,
    conflicts,
    destinations,
    explanations,
    identity,
    models,
    operations,
    quarantine,
    sign_off,
    storage,
)
from admin_api.installation import Api
from service_runtime.http_log import RequestLog
from service_runtime.problem_details import MEDIA_TYPE, Problem, answer_with_problems
from workflow_engine.commands import Refusal

_LONGEST_BODY_BYTES = 64 * 1024
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_ERRORS: dict[int | str, dict[str, object]] = {
    status: {"description": description, "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    for status, description in {
        400: "The request cannot be read.",
        401: "Nobody is logged in, or the password is wrong.",
        403: "The role is another's.",
        404: "There is no such thing.",
        409: "The case is in another state.",
        411: "The length of the body is not said.",
        413: "The body is too long.",
        422: "A field is at fault.",
        429: "Too many wrong passwords.",
        503: "Something that this needs is away.",
    }.items()
}


def make_app(api: Api) -> FastAPI:
    """Return the application of an installation."""
    app = FastAPI(
        title="Countersign",
        summary="Read cases and sign them.",
        version="1",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.api = api
    for router in (
        identity.router,
        cases.router,
        explanations.router,
        sign_off.router,
        conflicts.router,
        quarantine.router,
        application_entities.router,
        destinations.router,
        storage.router,
        models.router,
    ):
        app.include_router(router, prefix="/api/v1", responses=_ERRORS)
    app.include_router(operations.router, responses={503: _ERRORS[503]})
    answer_with_problems(app)
    app.add_exception_handler(Refusal, sign_off.on_refusal)
    app.middleware("http")(_refuse_long_body)
    app.add_middleware(RequestLog)
    return app


async def _refuse_long_body(
    request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Answer before a body is read that is longer than any that this API takes.

    It would be held in memory before anybody has been asked who they are.
    """
    length = request.headers.get("content-length")
    if length is None and "transfer-encoding" in request.headers:
        return Problem(
            HTTPStatus.LENGTH_REQUIRED, "length-required", "send the body with Content-Length"
        ).response()
    if length is not None and int(length) > _LONGEST_BODY_BYTES:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body-too-long",
            f"at most {_LONGEST_BODY_BYTES} bytes are taken",
        ).response()
    return await answer(request)
