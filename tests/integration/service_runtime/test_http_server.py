"""The limits of the HTTP server, over real connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect

from service_runtime import http_server
from service_runtime.http_log import RequestLog
from service_runtime.http_server import HttpServer, listen

LOOPBACK = "127.0.0.1"
POST = b"POST /body HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n"


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_HEAD_S", 0.3)
    monkeypatch.setattr(http_server, "SILENCE_S", 0.3)
    monkeypatch.setattr(http_server, "_AT_ONE_TIME", 4)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    app = FastAPI()
    app.add_middleware(RequestLog)

    @app.post("/body")
    async def body(request: Request) -> dict[str, str]:
        try:
            return {"body": (await request.body()).decode()}
        except ClientDisconnect:
            return {"body": "incomplete"}

    server = HttpServer(app, listen(LOOPBACK, 0))
    server.start()
    yield server
    server.close()


def connection_to(server: HttpServer) -> socket.socket:
    connection = socket.create_connection((LOOPBACK, server.port))
    connection.settimeout(60)
    return connection


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    data = b""
    while piece := connection.recv(4096):
        data += piece
    return data


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n"])
def test_a_head_that_does_not_end_ends_the_connection(server: HttpServer, head: bytes) -> None:
    with connection_to(server) as connection:
        connection.sendall(head)

        assert received(connection) == b""


def test_a_second_head_has_to_end_too(server: HttpServer) -> None:
    with connection_to(server) as connection:
        connection.sendall(POST + b"0123456789" + b"GET / HTT")

        assert b'{"body":"0123456789"}' in received(connection)


def test_a_silent_client_is_taken_to_have_gone(server: HttpServer) -> None:
    with connection_to(server) as connection:
        connection.sendall(POST + b"01234")

        assert b'{"body":"incomplete"}' in received(connection)


def test_a_head_that_is_too_long_is_refused(server: HttpServer) -> None:
    with connection_to(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)

        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_more_than_so_many_at_one_time_are_told_to_wait(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_HEAD_S", 60)
    waiting = [connection_to(server) for _ in range(4)]
    try:
        answer = httpx.get(f"http://{LOOPBACK}:{server.port}/body", trust_env=False)
    finally:
        for connection in waiting:
            connection.close()

    assert answer.status_code == 503


def test_answers_are_kept_in_no_cache(server: HttpServer) -> None:
    answer = httpx.post(f"http://{LOOPBACK}:{server.port}/body", content=b"x", trust_env=False)

    assert answer.json() == {"body": "x"}
    assert answer.headers["Cache-Control"] == "no-store"
