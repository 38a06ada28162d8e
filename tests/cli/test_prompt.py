"""The line editor at the bottom of a terminal, and its end when the chat ends."""

from __future__ import annotations

import re
import signal
import sys
import termios

import pytest

from relay.client.aio import Client
from relay.client.identity import Identity
from tests.support.cluster import Relay, run_relay, wait_until
from tests.support.tails import Tail
from tests.support.terminals import LINES, Terminal

KNOWN_INSTANCE = """
import asyncio, sys
from relay.cli.process.exits import guarded
from relay.client.aio import Client
from relay.client.identity import Identity
from relay.terminal.chat import Chat
from relay.terminal.prompt import PromptScreen

async def main(address, room):
    screen = PromptScreen(room)
    async with Client(address, name="anna", identity=Identity(b"s" * 16)) as client:
        with screen.shown():
            await Chat(client, room, screen).run(screen.typed(), 0)

sys.exit(guarded(lambda: asyncio.run(main(*sys.argv[1:]))))
"""

BETWEEN_PROMPTS = """
import asyncio, sys
from relay.cli.process.exits import guarded
from relay.terminal.prompt import PromptScreen

async def main():
    screen = PromptScreen("room")
    with screen.shown():
        async for line in screen.typed():
            screen.notice("has " + line)
            await asyncio.Event().wait()

sys.exit(guarded(lambda: asyncio.run(main())))
"""


async def test_the_server_ends_the_chat(relay: Relay, room: str) -> None:
    """A final close while the user types: the draft and the reason are shown, the status is 1."""
    program = [sys.executable, "-c", KNOWN_INSTANCE, relay.address, room]
    with Terminal(program=program) as anna:
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        anna.press("half a line")
        anna.shows("half a line")
        async with Client(relay.address, name="anna", identity=Identity(b"s" * 16)):
            assert anna.ends() == 1
    assert "-!- not sent: half a line\r" in bare(anna.text)
    assert "relay: REPLACED: " in anna.text
    assert "Traceback" not in anna.text
    assert "\x1b[?2004l" in anna.text


def test_pasted_lines_are_one_message(relay: Relay, room: str) -> None:
    """A bracketed paste is not sent line by line; none of it is a command."""
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        anna.press("\x1b[200~one\n/quit\n\x1b[201~\r")
        with Tail(relay.address, room, "--since", "0") as tail:
            assert tail.has(1) == ["one\n/quit\n"]
        anna.press("\x04")
        assert anna.ends() == 0


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_lines_pasted_without_marks(relay: Relay, room: str, term: str) -> None:
    """Some terminals send a paste like typed lines: each is shown once, as a message.

    Lines that arrive between two prompts draw no prompt of their own.
    """
    texts = [f"line {number:02}" for number in range(40)]
    with Terminal("chat", relay.address, room, "--name", "anna", env={"TERM": term}) as anna:
        anna.shows(f"{room}>")
        anna.press("".join(f"{text}\r" for text in texts))
        for text in texts:
            wait_until(lambda text=text: f"| {text}\r" in bare(anna.text), text)  # type: ignore[misc]
        anna.press("\x04")
        assert anna.ends() == 0
    lines = [line.strip() for line in bare(anna.text).splitlines()]
    shown = [line for line in lines if " anna| " in line]
    assert [line.split("| ", 1)[1] for line in shown] == texts
    if term == "dumb":
        assert not [line for line in shown if not re.match(r"\d\d:\d\d anna\|", line)]
    else:
        assert f"\n{room}>" not in anna.text  # drawn by the editor, which can remove it


def test_the_terminal_between_prompts() -> None:
    """While a typed line is handled, keys wait for the next prompt; Ctrl-C still interrupts."""
    with Terminal(program=[sys.executable, "-c", BETWEEN_PROMPTS]) as anna:
        before = anna.modes
        anna.shows("room>")
        anna.press("it\r")
        anna.shows("has it")
        local = anna.modes[3]
        assert not local & (termios.ECHO | termios.ICANON)
        assert local & termios.ISIG
        anna.press("\x03")
        assert anna.ends() == 130
        assert anna.modes == before


def test_what_is_typed_survives_what_arrives(relay: Relay, room: str) -> None:
    """A half-typed line is still there, and complete, after messages of others."""
    with (
        Terminal("chat", relay.address, room, "--name", "anna") as anna,
        Terminal("chat", relay.address, room, "--name", "bert") as bert,
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
    """It works, if without decoration."""
    arguments = ["chat", relay.address, room, "--name", "anna"]
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
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", anna.text).splitlines()
        assert any(re.fullmatch(r"\d\d:\d\d anna\| hello", line) for line in lines), anna.text
        assert not re.search(r"\x1b\[[0-9;]*[ABCDJK]", anna.text)


ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A terminal whose encoding, as Python sees it, is ASCII."""


@pytest.mark.parametrize("env", [{"LC_ALL": "C.UTF-8"}, ASCII], ids=["UTF-8", "ASCII"])
def test_what_is_typed_is_sent_as_it_is_or_not_at_all(
    relay: Relay, room: str, env: dict[str, str]
) -> None:
    """Whatever the locale: UTF-8 is, and bytes of another encoding are not; none becomes "?"."""
    with Terminal("chat", relay.address, room, "--name", "anna", env=env) as anna:
        anna.shows(f"{room}>")
        anna.press_bytes(b"caf\xe9 latin-1\r")
        anna.shows("not sent, because it is not UTF-8 text")
        anna.press("caf\u00e9 \u2713\r")
        with Tail(relay.address, room, "--since", "0") as tail:
            assert tail.has(1) == ["caf\u00e9 \u2713"]
        anna.press("\x04")
        assert anna.ends() == 0


# Not Ctrl-C, Ctrl-Z, Escape, which have a function. Ctrl-D deletes in a draft.
CONTROLS = [chr(code) for code in range(32) if code not in (3, 26, 27)]
SEQUENCES = [
    "\x1b5", "\x1b-", "\x1b#", "\x1b\x1d",  # repeat counts, comment, character search
    "\x1b[1;2D", "\x1b[1;6D", "\x1b[1;2H",  # selections by Shift and an arrow
    "\x1b[1;1R",  # the terminal reports its cursor position, without a request
    "\x1bOP", "\x1b[15~", "\x1b[2~", "\x18(", "\x18\x05",  # F1, F5, Insert, macros, editor
]  # fmt: skip


def test_no_key_begins_a_mode(relay: Relay, room: str) -> None:
    """Whichever key is pressed in a draft, the text typed next is in it, and Enter sends it."""
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows(f"{room}>")
        with Tail(relay.address, room, "--since", "0") as tail:
            for number, key in enumerate(CONTROLS + SEQUENCES):
                anna.press("x")
                anna.press(key)
                anna.press(f"mark{number};\r")
                wait_until(
                    lambda mark=f"mark{number};": any(mark in body for body in tail.bodies),  # type: ignore[misc]
                    f"a message after {key!r}; there are {tail.bodies}",
                )


def test_interrupt_discards_the_draft_first(relay: Relay, room: str) -> None:
    """Ctrl-C with a draft shows how to leave, and keeps the draft. Without one it leaves."""
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows(f"{room}>")
        anna.press("precious")
        anna.shows("precious")
        anna.press("\x03")
        anna.shows("press Ctrl-C again to leave")
        before = len(anna.text)

        def is_back() -> bool:
            anna.press("\x1b[A")  # again: the editor reads its history when it has drawn the prompt
            return "precious" in anna.text[before:]

        wait_until(is_back, "the draft is back")
        anna.press("\r")
        anna.shows("anna| \x1b[0mprecious")
        anna.press("once more")
        anna.shows("once more")
        anna.press("\x03\x03")
        assert anna.ends() == -signal.SIGINT


def test_the_terminal_is_not_asked_where_its_cursor_is(relay: Relay, room: str) -> None:
    """A late answer would move the prompt over printed lines; a missing answer would cause a
    warning.

    An answer that comes without a request draws nothing.
    """
    assert run_relay("send", relay.address, room, text="one\ntwo\n").returncode == 0
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows("two")
        anna.shows(f"{room}>")
        anna.press("\x1b[1;1R")
        before = len(anna.text)
        anna.press("typed")
        anna.shows("typed")
        drawn = anna.text[before:]
        assert drawn.count("\n") + len(re.findall(r"\x1b\[\d*[ABH]", drawn)) == 0
        anna.press("\r\x04")
        assert anna.ends() == 0
    assert "\x1b[6n" not in anna.text
    assert "CPR" not in anna.text


def test_a_long_draft_leaves_what_was_printed(relay: Relay, room: str) -> None:
    """It scrolls in a third of the terminal; the notice of its refusal stays."""
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows(f"{room}>")
        before = len(anna.text)
        anna.press("\x1b[200~" + "x" * 33_000 + "end\x1b[201~")
        anna.shows("end")
        assert anna.text[before:].count("\n") < LINES // 2
        anna.press("\r")
        anna.shows("not sent, too long (33,003 bytes")
        anna.press("\x04")
        assert anna.ends() == 1


def test_lines_typed_into_send(relay: Relay, room: str) -> None:
    """``relay send`` at a terminal prints what it waits for; Ctrl-D ends it."""
    with Terminal("send", relay.address, room) as anna:
        anna.shows("each line that you type is sent")
        anna.press("one\rtwo\r")
        anna.press("\x04")
        assert anna.ends() == 0
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(2) == ["one", "two"]


def bare(text: str) -> str:
    """Return text without control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
