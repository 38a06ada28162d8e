"""The line editor at the bottom of a terminal, and how it ends when the chat does."""

from __future__ import annotations

import re
import sys

import pytest

from relay.client.aio import Client
from relay.client.identity import Identity
from tests.support.cluster import Relay
from tests.support.tails import Tail
from tests.support.terminals import Terminal

KNOWN_INSTANCE = """
import asyncio, sys
from relay.cli.exits import guarded
from relay.client.aio import Client
from relay.client.identity import Identity
from relay.terminal.chat import Chat
from relay.terminal.prompt import PromptScreen

async def main(address, room):
    screen = PromptScreen(room)
    async with Client(address, name="anna", identity=Identity(b"s" * 16, b"p" * 8)) as client:
        with screen.shown():
            await Chat(client, room, screen).run(screen.typed(), 0)

sys.exit(guarded(lambda: asyncio.run(main(*sys.argv[1:]))))
"""


async def test_the_server_ends_the_chat(relay: Relay, room: str) -> None:
    """A final close while a person types: the prompt goes, the reason shows, the status is 1."""
    program = [sys.executable, "-c", KNOWN_INSTANCE, relay.address, room]
    with Terminal(program=program) as anna:
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        anna.press("half a line")
        anna.shows("half a line")
        async with Client(relay.address, name="anna", identity=Identity(b"s" * 16, b"p" * 8)):
            assert anna.ends() == 1
    assert "relay: REPLACED: " in anna.text
    assert "Traceback" not in anna.text
    assert "\x1b[?2004l" in anna.text


def test_pasted_lines_are_one_message(relay: Relay, room: str) -> None:
    """A bracketed paste is not sent line by line; nothing in it is a command."""
    with Terminal("chat", relay.address, "--name", "anna", "--room", room) as anna:
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        anna.press("\x1b[200~one\n/quit\n\x1b[201~\r")
        with Tail(relay.address, room, "--since", "0") as tail:
            assert tail.has(1) == ["one\n/quit\n"]
        anna.press("\x04")
        assert anna.ends() == 0


def test_what_is_typed_survives_what_arrives(relay: Relay, room: str) -> None:
    """A half-typed line is still there, and still whole, after somebody else's messages."""
    with (
        Terminal("chat", relay.address, "--name", "anna", "--room", room) as anna,
        Terminal("chat", relay.address, "--name", "bert", "--room", room) as bert,
    ):
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        bert.shows(f"in {room} as bert")
        bert.shows(f"{room}>")
        anna.press("half")
        anna.shows("half")
        bert.press("in between\r")
        anna.shows("in between")
        anna.press(" typed\r")
        bert.shows("half typed")


@pytest.mark.parametrize("term", ["dumb", "xterm-256color", "no-such-terminal"])
def test_any_terminal_type(relay: Relay, room: str, term: str) -> None:
    """It works, if only plainly."""
    arguments = ["chat", relay.address, "--name", "anna", "--room", room]
    with Terminal(*arguments, env={"TERM": term}) as anna:
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        anna.press("hello\r")
        with Tail(relay.address, room, "--since", "0") as tail:
            assert tail.has(1) == ["hello"]
        anna.shows("hello")
        anna.press("\x04")
        assert anna.ends() == 0
    if term == "dumb":
        assert not re.search(r"\x1b\[[0-9;]*[ABCDJK]", anna.text)


def test_lines_typed_into_send(relay: Relay, room: str) -> None:
    """``relay send`` at a terminal says what it waits for; Ctrl-D ends it."""
    with Terminal("send", relay.address, room) as anna:
        anna.shows("each line that you type is sent")
        anna.press("one\rtwo\r")
        anna.press("\x04")
        assert anna.ends() == 0
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(2) == ["one", "two"]
