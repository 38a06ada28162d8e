"""The small HTTP server: its answers, and that garbage affects its sender only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from relay.server.control import http_server
from relay.server.control.http_server import (
    CONNECTIONS_MAX,
    HEADERS_BYTES_MAX,
    Handler,
    HttpServer,
    Request,
    Response,
)


def hello(request: Request) -> Response:
    return Response(200, "text/plain", request.headers.get("x-name", "nobody").encode())


def broken(request: Request) -> Response:
    raise RuntimeError("secret")


Address = tuple[str, int]


@asynccontextmanager
async def serving(routes: Mapping[str, Handler] | None = None) -> AsyncIterator[Address]:
    http = HttpServer(routes or {"/hello": hello, "/broken": broken})
    server = await asyncio.start_server(http.serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await server.wait_closed()


async def exchange(address: Address, request: bytes) -> bytes:
    """Send, shut down, and return the whole answer."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    writer.write_eof()
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /hello HTTP/1.1", b"200 OK", b"Ann"),
        ("GET /hello?x=1 HTTP/1.1", b"200 OK", b"Ann"),
        ("GET http://relay:7476/hello HTTP/1.1", b"200 OK", b"Ann"),
        ("GET HTTPS://relay/hello?x=http://y/z HTTP/1.1", b"200 OK", b"Ann"),
        ("GET http://relay HTTP/1.1", b"404 Not Found", b"there is /hello, /broken\n"),
        ("HEAD /hello HTTP/1.1", b"200 OK", b""),
        ("POST /hello HTTP/1.1", b"405 Method Not Allowed", b"GET and HEAD only\n"),
        ("GET /other HTTP/1.1", b"404 Not Found", b"there is /hello, /broken\n"),
        ("GET /broken HTTP/1.1", b"500 Internal Server Error", b"internal error\n"),
        ("what is this", b"400 Bad Request", b"not an HTTP request\n"),
    ],
)
async def test_answers(request_line: str, status: bytes, body: bytes) -> None:
    async with serving() as address:
        request = f"{request_line}\r\nHost: relay\r\nX-Name: Ann\r\nConnection: close\r\n\r\n"
        answer = await exchange(address, request.encode())
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert rest == body
    assert b"secret" not in answer


@pytest.mark.parametrize(
    ("method", "status"), [("GET", b"200 OK"), ("POST", b"405 Method Not Allowed")]
)
async def test_who_asks_before_sending_a_body_is_not_kept_waiting(
    method: str, status: bytes
) -> None:
    """Nobody wants the body: the answer is final, and ends the connection."""
    async with serving() as address:
        reader, writer = await asyncio.open_connection(*address)
        lines = (
            f"{method} /hello HTTP/1.1",
            "Host: relay",
            "Content-Length: 9",
            "Expect: 100-continue",
        )
        writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"\r\nConnection: close\r\n" in answer


async def test_one_connection_asks_often() -> None:
    async with serving() as address:
        question = b"GET /hello HTTP/1.1\r\nHost: relay\r\n\r\n"
        answer = await exchange(address, question * 3)
    assert answer.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x00\xff" * 100, b"GET /hello HTTP/1.1\r\nX: " + b"x" * HEADERS_BYTES_MAX * 2],
)
async def test_garbage(garbage: bytes) -> None:
    async with serving() as address:
        answer = await exchange(address, garbage)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        assert (answer == b"") is (b"\r\nConnection: close\r\n" not in answer)
        good = await exchange(address, b"GET /hello HTTP/1.1\r\nHost: relay\r\n\r\n")
    assert good.startswith(b"HTTP/1.1 200")


QUESTION = b"GET /hello HTTP/1.1\r\nHost: relay\r\n\r\n"


async def test_too_many_connections() -> None:
    """When idle connections hold all slots, the one idle longest is closed."""
    async with serving() as address:
        held = [await asyncio.open_connection(*address) for _ in range(CONNECTIONS_MAX)]
        # Each of them is served before the next one connects.
        for reader, writer in held:
            writer.write(QUESTION)
            assert (await reader.readuntil(b"nobody")).startswith(b"HTTP/1.1 200")
        assert (await exchange(address, QUESTION)).startswith(b"HTTP/1.1 200")
        assert await held[0][0].read() == b""
        held[0][1].close()
        for reader, writer in held[1:]:
            writer.write(QUESTION)
            assert (await reader.readuntil(b"nobody")).startswith(b"HTTP/1.1 200")
            writer.close()


async def test_too_many_connections_that_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are closed as well: a probe is answered."""
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 3)
    large = Response(200, "text/plain", bytes(16 * 1024 * 1024))
    loop = asyncio.get_running_loop()
    async with serving({"/hello": hello, "/large": lambda _: large}) as address:
        held = []
        for _ in range(http_server.CONNECTIONS_MAX):
            taker = socket.socket()
            taker.setblocking(False)
            await loop.sock_connect(taker, address)
            await loop.sock_sendall(taker, QUESTION.replace(b"hello", b"large"))
            await loop.sock_recv(taker, 1)  # the answer has begun; the rest is not read
            held.append(taker)
        assert (await exchange(address, QUESTION)).startswith(b"HTTP/1.1 200")
        for taker in held:
            taker.close()


async def test_many_requests_at_once_leave_others_their_turn() -> None:
    """Each request is answered in a turn of its own, or the process would be killed as hung."""
    turns: list[int] = []
    turn = 0

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def note(_: Request) -> Response:
        turns.append(turn)
        return Response(200, "text/plain", b"nobody")

    async with serving({"/hello": note}) as address:
        counting = asyncio.create_task(count())
        answer = await exchange(address, QUESTION * 300)
        counting.cancel()
    assert answer.count(b"nobody") == 300
    assert len(set(turns)) == 300
