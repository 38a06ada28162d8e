"""Targets beside the records: tickets, the headers of proxies, and HTTP for metrics and probes."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Final, NamedTuple

from hypothesis import strategies as st

from relay.server.control.http_server import HttpServer, Request, Response
from relay.server.sources import named_by, source_of
from relay.server.worker.process.accepting import proxy_header
from relay.wire.events import HandshakeCompleted
from relay.wire.messages import TICKET_BYTES_MAX
from relay.wire.tickets import ClientTicket
from tests.fuzz.inputs import Edit, corpus_of, cuts, edited, edits, pieces
from tests.fuzz.target import Target
from tests.support.tickets import Desk, pair, ticket_of


# --- tickets --------------------------------------------------------------------------------------
class Offer(NamedTuple):
    """What a client offers: a valid ticket and its secret, both changed, and its handshake."""

    ticket: list[Edit]
    psk: list[Edit]
    handshake: list[Edit]
    again: bool
    """The ticket was used before."""


def _check_ticket(offer: Offer) -> None:
    """Only the ticket itself, with its secret and for the first time, resumes anything."""
    keys = Desk().worker()
    valid = ticket_of(keys)
    if offer.again:
        pair(keys, valid, "before").run()
    ticket = edited(valid.ticket, offer.ticket)[:TICKET_BYTES_MAX]
    psk = edited(valid.psk, offer.psk)[:32].ljust(32, b"\0")
    if not ticket:
        return
    whole = (ticket, psk) == valid
    ends = pair(keys, ClientTicket(ticket, type(valid.psk)(psk)), "fuzz")
    ends.client.take(ends.server.give())
    rightful = ends.client.give()
    sent = edited(rightful, offer.handshake)
    ends.server.take(sent)
    ends.run()
    modes = [event.mode for event in ends.server.events if isinstance(event, HandshakeCompleted)]
    if sent != rightful:
        assert modes == [], "a changed ClientKey was accepted"
    elif ticket == valid.ticket and psk != valid.psk:
        assert modes == [], "a ticket without its secret was accepted"
    else:
        assert modes == [int(whole and not offer.again)]
    for peer in (ends.client, ends.server):
        for due in range(0, 60, 10):
            peer.at(float(due))
    assert ends.server.connection.finished or modes


tickets = Target(
    "tickets",
    st.builds(Offer, st.just([]) | edits, st.just([]) | edits, st.just([]) | edits, st.booleans()),
    _check_ticket,
    examples=30,
)


# --- headers of proxies ---------------------------------------------------------------------------
def _header(command: int, family: int, rest: bytes) -> bytes:
    head = proxy_header.SIGNATURE + bytes((0x20 | command, family))
    return head + len(rest).to_bytes(2, "big") + rest


HEADERS: Final = [
    _header(1, 0x11, bytes((10, 0, 0, 7, 10, 0, 0, 1, 4, 0, 0x1D, 0x33))),
    _header(1, 0x21, bytes(15) + b"\x07" + bytes(20) + b"\x04\0\x01x"),
    _header(0, 0, b""),
    _header(1, 0x31, bytes(216)),
    b"PROXY TCP4 10.0.0.7 10.0.0.1 1 2\r\n",
    *corpus_of("proxy_headers"),
]


def _check_header(data: bytes) -> None:
    """An address that all budgets can use, none, or one BadHeader."""
    fixed = data[: proxy_header.FIXED_BYTES]
    if len(fixed) < proxy_header.FIXED_BYTES:
        return  # more is waited for
    try:
        length = proxy_header.rest_of(fixed)
        assert length <= proxy_header.REST_BYTES_MAX
        rest = data[proxy_header.FIXED_BYTES :][:length]
        if len(rest) < length:
            return
        address = proxy_header.source(fixed, rest)
    except proxy_header.BadHeader as error:
        assert 0 < len(str(error)) < 200
        return
    assert source_of(named_by("10.0.0.1", address))


proxy_headers = Target(
    "proxy_headers",
    st.builds(edited, st.sampled_from(HEADERS), edits) | st.binary(max_size=300),
    _check_header,
    of_bytes=bytes,
    seeds=HEADERS,
    quick=10_000,
)


# --- HTTP -----------------------------------------------------------------------------------------
REQUESTS: Final = [
    b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD http://h/health?x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /health HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    *corpus_of("http"),
]


class _Faults(logging.Handler):
    """What the server logs is an error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


def _health(request: Request) -> Response:
    return Response(200, "text/plain", request.headers.get("host", "").encode())


async def _served(data: bytes, sizes: list[int]) -> bytes:
    """Serve a connection whose peer sends this and reads to the end; return the answers."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    own_reader, own_writer = await asyncio.open_connection(sock=theirs)
    serving = asyncio.create_task(HttpServer({"/health": _health}).serve(reader, writer))
    answers = asyncio.create_task(own_reader.read())
    try:
        for piece in pieces(data, sizes):
            own_writer.write(piece)
            await own_writer.drain()
        own_writer.write_eof()
    except (ConnectionError, RuntimeError):
        pass  # it was closed meanwhile, as after a bad request
    await serving
    try:
        return await answers
    except ConnectionError:
        return b""
    finally:
        own_writer.transport.abort()
        writer.transport.abort()


def _check_http(value: tuple[bytes, list[int]]) -> None:
    """Answers, or the end of the connection; no error of the server's own."""
    faults = _Faults()
    logger = logging.getLogger("relay.control")
    logger.addHandler(faults)
    try:
        answer = asyncio.run(_served(*value))
    finally:
        logger.removeHandler(faults)
    assert faults.told == []
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")


http = Target(
    "http",
    st.tuples(st.builds(edited, st.sampled_from(REQUESTS), edits) | st.binary(max_size=100), cuts),
    _check_http,
    examples=40,
    of_bytes=lambda data: (data[:60_000], []),
    seeds=REQUESTS,
    quick=100,
)
TARGETS: Final = (tickets, proxy_headers, http)
