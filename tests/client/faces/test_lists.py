"""False answers to requests with several pages, with both clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay import codec
from relay.chat.rooms import shown
from relay.chat.rooms.events import Kind, Role
from relay.client.errors import ServerBrokeProtocol
from relay.client.events import State
from relay.wire import envelopes as wire
from tests.client.faces.adapters import Face
from tests.client.faces.test_arguments import call
from tests.support.fake_server import FakeConnection, FakeServer

Connect = Callable[..., Face]
LISTED = shown.Listed("room", Kind.PUBLIC, "", "", False, Role.NONE, 0, 1, 1)
NAMELESS = shown.Own(LISTED._replace(name="@room"), bytes(8), 0, 0)
STATE = (0, 0, 0, True, "", "", False, False, 0, 0, 0, 0, 0)
KEEP = (0, (0, 0, 0), bytes(8))
NOBODY = codec.pack((*STATE, [], False, *KEEP))
SOMEBODY = codec.pack((*STATE, [["anna", b"", 1, False, False, 0, 0]], False, *KEEP))
GARBAGE = b"\xc1"


@pytest.mark.parametrize(
    ("method", "args", "content"),
    [
        ("rooms", (), shown.pack_list([], "", False)),
        ("rooms", (), shown.pack_list([LISTED], "room", False)),
        ("rooms", (), shown.pack_list([LISTED._replace(name="\x1b[2J")], "", True)),
        ("rooms", (), GARBAGE),
        ("rooms_of_mine", (), shown.pack_own([], "", False)),
        ("rooms_of_mine", (), shown.pack_own([NAMELESS], "", True)),
        ("rooms_of_mine", (), GARBAGE),
        ("room_info", ("room",), NOBODY),
        ("room_info", ("room",), SOMEBODY),
        ("room_info", ("room",), GARBAGE),
        ("users", (), codec.pack(["anna"])),
        ("users", (), codec.pack(["anna and bob"])),
        ("users", (), GARBAGE),
        ("read_marks", (), codec.pack(([["room", b"e" * 8, 1]], False))),
        ("read_marks", (), GARBAGE),
        ("user", ("anna",), GARBAGE),
        ("last_seen", ("anna",), GARBAGE),
    ],
)
def test_false_answers(face: Connect, method: str, args: tuple[Any, ...], content: bytes) -> None:
    """They end the client, as any protocol violation does; it does not ask for ever."""
    also: dict[str, Any] = {}
    if method == "rooms_of_mine":
        method, also = "rooms", {"mine": True}

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        kind: Any = wire.Room if method.startswith("room") else wire.Account
        while True:
            connection.send_envelopes(wire.Done(connection.wait_for(kind).request, content))

    with FakeServer(script) as server:
        one = face(server.address, "alice")
        one.connect()
        with pytest.raises(ServerBrokeProtocol):
            call(one, method, *args, **also)
        assert one.client.state is State.CLOSED
        with pytest.raises(ServerBrokeProtocol):
            call(one, method, *args, **also)
