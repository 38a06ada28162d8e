"""How a chat shows the user's own lines while the server does not answer."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Relay, run_relay, wait_until
from tests.support.terminals import Terminal

REDRAW = "\x0c"
"""Ctrl-L: the terminal is cleared, and pending lines are drawn again with the prompt."""


@contextlib.contextmanager
def standing(relay: Relay) -> Iterator[None]:
    """Stop the server: no request is answered, and connections stay. (The supervisor would kill
    hung workers.)
    """
    pids = [relay.pid, *relay.worker_pids()]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def drawn_again(person: Terminal, room: str) -> str:
    """Return what is drawn of the prompt, and above it."""
    before = len(person.text)
    person.press(REDRAW)
    wait_until(lambda: f"{room}>" in person.text[before:], "the prompt is drawn again")
    return person.text[before:]


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Relay]:
    """A relay of this module, for it is stopped at times."""
    with Relay(tmp_path / "data") as running:
        yield running


def test_what_is_not_accepted_is_marked(frozen: Relay, room: str) -> None:
    """A line and a command, above the draft; the mark disappears when the server answers."""
    with Terminal("chat", frozen.address, room, "--name", "anna") as anna:
        anna.shows(f"{room}>")
        anna.press("before\r")
        anna.shows("anna| \x1b[0mbefore")
        wait_until(lambda: "yet:" not in drawn_again(anna, room), "no mark of what is stored")
        with standing(frozen):
            anna.press("are you there\r")
            anna.shows("not stored yet: are you there")
            anna.press("/topic tea\r")
            anna.shows("no answer yet: /topic tea")
            anna.press("draft")
            anna.shows("draft")
            drawn = drawn_again(anna, room)
            assert "not stored yet: are you there" in drawn
            assert "no answer yet: /topic tea" in drawn
            assert "anna| \x1b[0mare you there" not in anna.text
        anna.shows("anna| \x1b[0mare you there")
        anna.shows("tea")
        wait_until(lambda: "yet:" not in drawn_again(anna, room), "no mark is left")


def test_what_is_refused_stays_told(frozen: Relay, room: str) -> None:
    """With its text and the reason, after the mark has disappeared."""
    create = ("room", "create", frozen.address, room, "--kind", "announce", "--name", "bert")
    assert run_relay(*create, env={"RELAY_REGISTER": "1"}).returncode == 0
    with Terminal("chat", frozen.address, room, "--name", "anna") as anna:
        anna.shows(f"{room}>")
        with standing(frozen):
            anna.press("may I\r")
            anna.shows("not stored yet: may I")
        anna.shows("not stored (READ_ONLY")
        wait_until(lambda: "yet:" not in drawn_again(anna, room), "no mark is left")
        assert re.search(
            r"not stored \(READ_ONLY: [^)]*\): may I", anna.text.replace("\r\n    ", " ")
        )


def test_many_lines_leave_room_for_the_draft(frozen: Relay, room: str) -> None:
    """Some are shown, and the number of the others; once accepted, all are printed."""
    with Terminal("chat", frozen.address, room, "--name", "anna") as anna:
        anna.shows(f"{room}>")
        with standing(frozen):
            for number in range(20):
                anna.press(f"line {number}\r")
            anna.shows("and 15 more")
            drawn = drawn_again(anna, room)
            assert drawn.count("not stored yet") == 5
        anna.shows("anna| \x1b[0mline 19")


def test_a_dumb_terminal_is_told_once(frozen: Relay, room: str) -> None:
    """Printed text stays there, so the mark is a line of its own."""
    with Terminal("chat", frozen.address, room, "--name", "anna", env={"TERM": "dumb"}) as anna:
        anna.shows(f"{room}>")
        with standing(frozen):
            anna.press("one\r")
            anna.shows("-!- not stored yet: one")
            anna.press("two\r")
            anna.shows("-!- not stored yet: two")
        anna.shows("anna| \x1b[0mtwo")
        assert anna.text.count("not stored yet: one") == 1
