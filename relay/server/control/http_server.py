"""A small HTTP/1.1 server for requests without a body: h11 is the protocol, this the sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import h11

CONNECTIONS_MAX: Final = 64
REQUEST_S: Final = 10.0
"""How long a connection may be silent before, within and after a request."""
READ_BYTES: Final = 16_384
HEADERS_BYTES_MAX: Final = 16_384
log = logging.getLogger("relay.control")


class Response(NamedTuple):
    """An answer."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Request(NamedTuple):
    """A GET or HEAD request."""

    path: str
    headers: Mapping[str, str]
    """By name in lower case."""


Handler = Callable[[Request], Response]


class HttpServer:
    """Answers by a table of paths."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._routes = routes
        self._open: dict[asyncio.StreamWriter, None] = {}
        """The connection whose peer was last active longest ago comes first. Answers are created
        immediately, so every connection waits for its peer: to send a request, or to read."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end. Raises nothing because of the peer.

        If there are too many, the connection whose peer has been inactive longest is closed: others
        cannot lock out a health probe, whether they send no request or read no answer.
        """
        if len(self._open) >= CONNECTIONS_MAX:
            silent = next(iter(self._open))
            silent.transport.abort()
            del self._open[silent]
        self._open[writer] = None
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, h11.ProtocolError):
            pass
        except Exception:
            log.exception("http_failed")
        finally:
            self._open.pop(writer, None)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    def _heard_of(self, writer: asyncio.StreamWriter) -> None:
        if writer in self._open:
            del self._open[writer]
            self._open[writer] = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADERS_BYTES_MAX)
        while True:
            async with asyncio.timeout(REQUEST_S):
                try:
                    request = await _next_request(connection, reader)
                except h11.RemoteProtocolError as error:
                    if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                        status = error.error_status_hint
                        await _send(
                            connection, writer, _text(status, "not an HTTP request"), head=False
                        )
                    return
                if request is None:
                    return
                self._heard_of(writer)
                response = self._answer(request)
                await _send(connection, writer, response, head=request.method == b"HEAD")
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return
                connection.start_next_cycle()
                # More requests may have arrived with this one: serve others and the heartbeat
                # first.
                await asyncio.sleep(0)

    def _answer(self, request: h11.Request) -> Response:
        if request.method not in (b"GET", b"HEAD"):
            return _text(405, "GET and HEAD only")._replace(headers=(("Allow", "GET, HEAD"),))
        path = _path(request.target)
        handler = self._routes.get(path)
        if handler is None:
            return _text(404, f"there is {', '.join(self._routes)}")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
        try:
            return handler(Request(path, headers))
        except Exception:
            log.exception("http_handler_failed", extra={"path": path})
            return _text(500, "internal error")


def _path(target: bytes) -> str:
    """Return the path of a request's target, which may be a whole URL (RFC 9112, 3.2.2)."""
    text = target.decode("ascii", errors="replace").split("?")[0]
    if text.lower().startswith(("http://", "https://")):
        return "/" + text.split("/", 3)[3] if text.count("/") > 2 else "/"
    return text


def _text(status: int, text: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", f"{text}\n".encode())


async def _next_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> h11.Request | None:
    """Return the next request, read to its end; None: the peer has finished.

    A body is read unless the peer waits until it is wanted (Expect: 100-continue).

    Raises:
        h11.RemoteProtocolError: invalid HTTP, or too long.
    """
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
            if connection.they_are_waiting_for_100_continue:
                return request
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif not isinstance(event, h11.Data):  # a body is not used, and is dropped
            return None


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, response: Response, *, head: bool
) -> None:
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        *response.headers,
    ]
    if connection.their_state is h11.ERROR or connection.they_are_waiting_for_100_continue:
        headers.append(("Connection", "close"))  # where the next request begins is not known
    status = h11.Response(
        status_code=response.status,
        reason=HTTPStatus(response.status).phrase.encode(),
        headers=headers,
    )
    data = connection.send(status) or b""
    if not head:
        data += connection.send(h11.Data(data=response.body)) or b""
    data += connection.send(h11.EndOfMessage()) or b""
    writer.write(data)
    await writer.drain()
