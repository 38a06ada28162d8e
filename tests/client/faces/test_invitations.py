"""Invitations that both clients create."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from relay import limits
from relay.chat.accounts import requests
from relay.wire import envelopes as wire
from tests.client.faces.adapters import Face
from tests.client.faces.test_arguments import call
from tests.support.fake_server import FakeConnection, FakeServer

Connect = Callable[..., Face]
DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS


@pytest.mark.parametrize(
    "server_ms",
    [0, YEAR_MS, 130 * YEAR_MS, limits.U63_MAX - 3 * DAY_MS, limits.U63_MAX],
    ids=["1970", "1971", "2099", "almost the last", "the last"],
)
@pytest.mark.parametrize(
    ("method", "args"),
    [("invite", ()), ("change_user", ("bob", "add")), ("change_user", ("bob", "reset"))],
)
def test_they_expire_by_the_servers_clock(
    face: Connect, method: str, args: tuple[Any, ...], server_ms: int
) -> None:
    """However wrong this machine's clock is: the server decides what has expired, and would take
    one that has for a revocation.
    """
    made: list[Any] = []

    def script(connection: FakeConnection) -> None:
        connection.log_in(server_ms)
        asked = connection.wait_for(wire.Account)
        made.append(requests.unpack(asked.content))
        connection.send_envelopes(wire.Done(asked.request, b""))
        connection.read_to_end()

    begun_s = time.monotonic()
    with FakeServer(script) as server:
        one = face(server.address, "alice")
        one.connect()
        assert call(one, method, *args, days=5)
        one.close()
    [request] = made
    exact = server_ms + 5 * DAY_MS
    most = exact + int((time.monotonic() - begun_s) * 1000) + 1
    assert min(exact, limits.U63_MAX) <= request.expires_ms <= min(most, limits.U63_MAX)
