"""The client's state against a server that sends anything, over the real wire protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from hypothesis import strategies as st

from relay.chat.accounts import answers
from relay.chat.accounts import requests as account_requests
from relay.chat.entries import Cursor, Kind
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import requests as room_requests
from relay.chat.rooms import shown
from relay.client.errors import ClientError, ServerBrokeProtocol
from relay.client.event_queue import EVENTS_MAX
from relay.client.events import State, StateChanged
from relay.client.pending_sends import Offer
from relay.client.trust.lineage import Expected
from relay.errors import EnvelopeError
from relay.limits import HISTORY_ON_JOIN_MAX, RECORD_CONTENT_BYTES_MAX
from relay.wire import envelopes as wire
from relay.wire import packing
from relay.wire.codes import CloseCode
from relay.wire.identity import fingerprint
from relay.wire.packing import unpack_server
from relay.wire.phases import Phase
from tests.client.peer import Link
from tests.fuzz import requests
from tests.fuzz.inputs import contents
from tests.fuzz.target import Target
from tests.support.pair import server_key
from tests.vectors.generate import TO_CLIENT


class Say(NamedTuple):
    """The server sends the contents of some records, which arrive in one read."""

    contents: list[bytes]


class Call(NamedTuple):
    """The program calls a method."""

    name: str
    log: str
    number: int


class Wait(NamedTuple):
    """Time passes."""

    seconds: float


class End(NamedTuple):
    """The server closes with a code; None: the connection is lost."""

    code: int | None


REQUESTS: Final = range(1, 5)
"""The numbers of a client's first requests."""
CONTENTS: Final = [b"", *requests.ANSWERS]
SAMPLES: Final = [
    *map(packing.pack, TO_CLIENT),
    *(
        packing.pack(cast("Any", one)._replace(request=number))
        for one in TO_CLIENT
        if hasattr(one, "request")
        for number in REQUESTS
    ),
    *(packing.pack(wire.Done(number, content)) for content in CONTENTS for number in REQUESTS),
]
ANSWERS: Final[dict[str, Callable[[bytes], object]]] = {
    "account": answers.unpack_shown,
    "invitations": answers.unpack_invitations,
    "room": shown.unpack,
    "rooms": shown.unpack_own,
    "created": shown.unpack_identity,
}
"""Requests whose answer is DONE, and how its content is read."""
calls: Final = (
    "send", "edit", "join", "resume", "own queue", "leave", "who", "history", "search", "devices",
    *ANSWERS, "take", "close", "dial",
)  # fmt: skip
steps: Final = st.lists(
    st.builds(
        Say,
        st.lists(st.sampled_from(SAMPLES) | contents(SAMPLES, "client"), min_size=1, max_size=3),
    )
    | st.builds(
        Call,
        st.sampled_from(calls),
        st.sampled_from(("lobby", "LOBBY", "@ann", "x", "")),
        st.sampled_from((0, 1, 7, 1000, 10_001, 2**63 - 1)),
    )
    | st.builds(Wait, st.sampled_from((0.1, 1.0, 6.0, 31.0, 100.0)))
    | st.builds(End, st.none() | st.sampled_from((0, 1000, 1003, 2000, 2001, 65_535))),
    max_size=15,
)


def _check(value: tuple[bool, list[Any]]) -> None:
    """Only ClientError for the program; pending data is bounded; it can always be closed."""
    welcomed, todo = value
    link = Link(expected_key=Expected(fingerprint(server_key().spki)))
    link.dial()
    if welcomed:
        link.send_envelopes(wire.Welcome("alice", 0, 32_768, 1024, "peer"))
    for token, step in enumerate(todo):
        if isinstance(step, Say):
            if link.server.phase is Phase.OPEN and link.state.connected:
                _say(link, step.contents)
        elif isinstance(step, Wait):
            link.pass_time(step.seconds)
        elif isinstance(step, End):
            if step.code is None:
                link.lose()
            else:
                link.end(step.code)
        else:
            with contextlib.suppress(ClientError):
                _call(link, step, token)
            link.run()
        # One read may bring what one record holds beyond the bound.
        assert len(link.state.chat.queue) <= EVENTS_MAX + 65_536
        if link.close is not None and link.close.remote and link.close.code == CloseCode.PROTOCOL:
            # The server got a close for its violation: the program gets the error, whatever
            # follows.
            assert isinstance(link.state.error, ServerBrokeProtocol), link.state.error
    link.state.close(link.now)
    link.run()
    link.pass_time(10.0)
    assert link.condition() is State.CLOSED
    link.taken()


def _say(link: Link, contents: list[bytes]) -> None:
    """Let records arrive in one read; what comes after a violation has no effect."""
    logins = link.state.logins
    contents = [content[:RECORD_CONTENT_BYTES_MAX] for content in contents]
    for content in contents:
        link.server.send(content, link.now)
    link.run()
    try:
        unpack_server(contents[0])
    except EnvelopeError:
        assert link.state.logins == logins, "a login after a violation"
        states = [event.state for event in link.taken() if isinstance(event, StateChanged)]
        assert states[-1:] in ([], [State.CLOSED])


def _call(link: Link, call: Call, token: int) -> None:
    """With the arguments that the clients let through: they check a program's arguments."""
    state, log, number = link.state, call.log, call.number
    if call.name == "send":
        if state.chat.sends.has_space(1):
            state.chat.send(Offer(log, "text/plain", b"x"), token)
    elif call.name == "join":
        state.chat.join(log, None, min(number, HISTORY_ON_JOIN_MAX), token)
    elif call.name == "resume":
        state.chat.join(log, Cursor(bytes(8), number), 0, token)
    elif call.name == "leave":
        state.chat.leave(log, token)
    elif call.name == "who":
        state.chat.who(log, token)
    elif call.name == "history":
        state.chat.history(log, number % 2 == 0, number, 10, token)
    elif call.name == "edit":
        if state.chat.sends.has_space(1):
            state.chat.send(Offer(log, "", b"x", int(Kind.EDIT), Cursor(bytes(8), number)), token)
    elif call.name == "own queue":
        state.chat.join(log, None, 0, token, own_queue=True)
    elif call.name == "search":
        state.chat.search(log, "word", number, 10, token)
    elif call.name == "devices":
        state.chat.ask_devices(log or "ann", number % 2**16, token)  # a name is never empty
    elif call.name in ("account", "invitations"):
        about = account_requests.ListInvitations(number % PARTITIONS, "")
        asked = account_requests.Show() if call.name == "account" else about
        state.chat.ask_account("", asked, token, ANSWERS[call.name])
    elif call.name in ("room", "rooms"):
        request = room_requests.Show("") if call.name == "room" else room_requests.Mine("")
        state.chat.ask_room(log, request, number, token, ANSWERS[call.name])
    elif call.name == "created":
        state.chat.ask_room(log, room_requests.Create(), number, token)
    elif call.name == "take":
        link.taken()
    elif call.name == "dial":
        if state.connect_at is not None:
            link.now = max(link.now, state.connect_at)
            link.dial()
    else:
        state.close(link.now)


client = Target("client", st.tuples(st.booleans(), steps), _check, examples=30)
TARGETS: Final = (client,)
