from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from service_runtime.errors import TransientError
from service_runtime.problem_details import MEDIA_TYPE, Problem, answer_with_problems


class Login(BaseModel):
    email: str
    attempts: int


class Client:
    """Asks an application in this process."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://tests") as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)


@pytest.fixture
def client() -> Client:
    app = FastAPI()
    answer_with_problems(app)

    @app.get("/conflict")
    def conflict() -> None:
        raise Problem(409, "wrong-stage", "the case is signed", extension={"stage": "admin"})

    @app.get("/away")
    def away() -> None:
        raise TransientError("database: OperationalError")

    @app.get("/bug")
    def bug() -> None:
        raise KeyError("DOE^JANE")

    @app.post("/login")
    def login(body: Login) -> str:
        return body.email

    return Client(app)


def test_a_problem_is_told_as_the_standard_has_it(client: Client) -> None:
    answer = client.get("/conflict")

    assert answer.status_code == 409
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json() == {
        "type": "urn:countersign:problem:wrong-stage",
        "title": "Conflict",
        "status": 409,
        "detail": "the case is signed",
        "stage": "admin",
    }


def test_an_invalid_request_names_the_fields_and_not_the_values(client: Client) -> None:
    answer = client.request("POST", "/login", json={"attempts": "hunter2"})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "hunter2" not in answer.text
    assert [fault["field"] for fault in answer.json()["errors"]] == ["body.email", "body.attempts"]


def test_what_may_pass_is_to_be_tried_again(client: Client) -> None:
    answer = client.get("/away")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_a_fault_of_ours_tells_nothing(client: Client) -> None:
    answer = client.get("/bug")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "DOE" not in answer.text


def test_an_unknown_path_and_method_are_problems_too(client: Client) -> None:
    assert client.get("/nowhere").json()["type"] == "urn:countersign:problem:not-found"
    answer = client.request("DELETE", "/login")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == MEDIA_TYPE
