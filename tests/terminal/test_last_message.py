"""/edit, /erase, /reply and /react do not apply to a message that may not be meant."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from relay.chat.entries import Cursor, GapReason
from relay.client.aio import Client
from relay.client.events import Erased, Gap, LogEntry, Message, Redaction
from relay.terminal.last_message import LastMessageCommands
from relay.terminal.pending import Pending
from relay.terminal.recent import Recent
from relay.terminal.sending import Sending
from relay.wire import envelopes as wire
from tests.support.fake_server import FakeConnection, FakeServer
from tests.terminal.test_chat import Notices
from tests.terminal.test_recent import EPOCH, entry


class Chat:
    """The parts of a chat that they use: what was shown, and what the server was asked."""

    def __init__(self, client: Client, recent: Recent) -> None:
        self.screen = Notices()
        self.asked: list[str] = []
        self.sending = Sending(client, "lobby", self.screen, Pending(self.screen.pending))
        self.commands = LastMessageCommands(client, self.sending, recent, self.ask)

    def ask(self, question: Callable[[], object]) -> None:
        """Record the request."""
        assert isinstance(question, partial)
        self.asked.append(f"{question.func.__name__} {question.args[0].body.decode()}")

    async def type(self, what: str, target: str, text: str = "x") -> str:
        """Return what the user is told, or what the server is asked."""
        asked = len(self.asked)
        await self.commands.do(what, text, target)
        return self.asked[-1] if len(self.asked) > asked else self.screen.told[-1]


@pytest.mark.parametrize(
    ("what", "done", "why"),
    [
        ("edit", "edit mine", "your last message went to bob alone"),
        ("erase", "redact mine", "your last message went to bob alone"),
        ("react", "react hers", "the last message is from bob, to you alone"),
    ],
)
async def test_after_a_direct_message(what: str, done: str, why: str) -> None:
    """In a room it is refused until typed again; in the conversation it is done."""
    recent = Recent("me")
    for seq, sender, text, to in (
        (1, "me", "mine", ""),
        (2, "ann", "hers", ""),
        (3, "me", "pin", "bob"),
        (4, "bob", "his", "me"),
    ):
        recent.note(entry(Message, seq, sender, text, to=to))
    chat = Chat(Client("127.0.0.1", name="~me"), recent)
    told = await chat.type(what, "lobby")
    assert told.startswith(f"not sent: {why} (/query bob goes there); type the same again for")
    assert told.endswith(" in lobby")
    assert (await chat.type(what, "lobby", "y")).startswith("not sent"), "not the same"
    assert await chat.type(what, "lobby", "y") == done
    assert (await chat.type(what, "lobby", "y")).startswith("not sent"), "once"
    assert chat.sending.failures == 3
    assert (await chat.type(what, "@bob")).split()[1] == ("his" if what == "react" else "pin")
    assert (await chat.type(what, "@ann")).startswith("not sent" if what != "react" else "there is")
    recent.note(entry(Message, 5, "me" if what != "react" else "ann", "new"))
    assert (await chat.type(what, "lobby")).split()[1] == "new"
    elsewhere = await chat.type(what, "@bob")
    assert elsewhere == "react his" if what == "react" else elsewhere.startswith("not sent: your")


def stored_as_2(connection: FakeConnection) -> None:
    """A server that stores the first message that is sent."""
    connection.log_in()
    sent = connection.wait_for(wire.Send)
    connection.send_envelopes(wire.Ack("lobby", sent.counter, EPOCH, 2))
    connection.read_to_end()


async def test_what_was_just_sent_is_the_last_message() -> None:
    """Until it is stored and shown, an edit would apply to the previous message."""
    recent = Recent("~me")
    recent.note(entry(Message, 1, "~me", "before"))
    with FakeServer(stored_as_2) as server:
        async with Client(server.address, name="~me") as client:
            chat = Chat(client, recent)
            await chat.sending.say("now", "lobby")
            assert "not stored yet" in await chat.type("edit", "lobby")
            await chat.sending.all_stored()
            assert "not stored yet" in await chat.type("edit", "lobby"), "nor shown"
            recent.note(entry(Message, 2, "~me", "now"))
            assert await chat.type("edit", "lobby") == "edit now"
            recent.note(entry(Redaction, 3, "ann", about=2))
            gone = 'not sent: your last message is gone; type the same again for "before" in lobby'
            assert await chat.type("erase", "lobby") == gone
            assert await chat.type("erase", "lobby") == "redact before"
            recent.note(entry(Redaction, 4, "~me", about=1))
            for what in ("edit", "erase"):
                assert (
                    await chat.type(what, "lobby") == "there is no message of yours here; not sent"
                )


@pytest.mark.parametrize(
    "hidden",
    [
        Gap("lobby", Cursor(EPOCH, 1), Cursor(EPOCH, 2), GapReason.RETENTION),
        Gap("lobby", Cursor(EPOCH, 1), Cursor(b"another.", 0), GapReason.EPOCH),
        entry(Erased, 2, "~me", about=3),
    ],
    ids=["retention", "epoch", "erased"],
)
async def test_what_was_just_sent_is_never_shown(hidden: Gap | LogEntry) -> None:
    """The chat does not wait for it."""
    recent = Recent("~me")
    with FakeServer(stored_as_2) as server:
        async with Client(server.address, name="~me") as client:
            chat = Chat(client, recent)
            await chat.sending.say("now", "lobby")
            await chat.sending.all_stored()
            assert "not stored yet" in await chat.type("edit", "lobby")
            if isinstance(hidden, Gap):
                recent.note_gap(hidden)
            else:
                recent.note(hidden)
            assert "there is no message of yours here" in await chat.type("edit", "lobby")
