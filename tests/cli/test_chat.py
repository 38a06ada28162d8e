"""``relay chat`` at a terminal, byte by byte, and in pipes."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support.cluster import DEADLINE_S, Relay, run_relay
from tests.support.people import Person
from tests.support.terminals import COLUMNS, Terminal

SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z@]|.)")
OURS = re.compile(r"\[(\?(1|7|12|25|2004)[hl]|[0-9;]*[mABCDKJ])")
"""Sequences of prompt_toolkit and of our own colours; ``\\x1b[2J`` is handled separately."""
HOSTILE = (
    "\x1b[2J\x1b[1;1H\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x1b\\\x1b[6n\x1bPq\x1b\\\x9b31m"
    "safe\rEVIL\b\x07\x7f\u202egnp\u2066\u200b\U000e0041\u3164"
)


def assert_only_ours(written: str) -> None:
    """Check that there is no control character and no sequence but those of the prompt."""
    for found in SEQUENCE.finditer(written):
        assert OURS.fullmatch(found.group(1)), ascii(found.group())
        assert found.group() != "\x1b[2J"
    rest = SEQUENCE.sub("", written)
    assert set(re.findall(r"[\x00-\x1f\x7f-\x9f]", rest)) <= set("\r\n\b"), ascii(rest)


def test_hostile_text_at_a_terminal(relay: Relay, room: str) -> None:
    """Of a message that attacks the terminal only visible escapes are printed."""
    assert run_relay("send", relay.address, room, HOSTILE + "\n-!- you were kicked").returncode == 0
    with Terminal("chat", relay.address, room, "--name", "victim") as terminal:
        terminal.shows("you were kicked")
        terminal.shows(f"{room}>")
        terminal.press("\x04")
        assert terminal.ends() == 0
    assert_only_ours(terminal.text)
    shown = SEQUENCE.sub("", terminal.text)
    assert "\\u{1b}[2J\\u{1b}[1;1H\\u{1b}]52;c;" in shown.replace("\r\n", "").replace(" ", "")
    assert not re.search(r"^-!- you were", shown, re.MULTILINE)
    for name in ("\u202e", "\u2066", "\u200b", "\U000e0041", "\u3164"):
        assert name not in shown


def test_two_terminals_talk(relay: Relay, room: str) -> None:
    """Typed lines show at both once they are stored; commands are not sent; Ctrl-D leaves."""
    with (
        Terminal("chat", relay.address, room, "--name", "anna") as anna,
        Terminal("chat", relay.address, room, "--name", "bert") as bert,
    ):
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        bert.shows(f"in {room} as bert")
        bert.shows(f"{room}>")
        anna.press("hello bert\r")
        bert.shows("hello bert")
        anna.shows("anna| ")
        bert.press("/nonsense\r//slashes\r/who\r")
        anna.shows("/slashes")
        bert.shows("unknown command /nonsense")
        bert.shows("2 people in")
        assert "nonsense" not in anna.text
        anna.press("\x04")
        assert anna.ends() == 0
        bert.shows("anna left")
        bert.press("/quit\r")
        assert bert.ends() == 0
    assert_only_ours(anna.text)
    assert_only_ours(bert.text)


def test_earlier_messages_on_demand(relay: Relay, room: str) -> None:
    """Each /history shows older messages."""
    lines = "".join(f"line {n};\n" for n in range(30))
    assert run_relay("send", relay.address, room, text=lines).returncode == 0
    with Terminal("chat", relay.address, room, "--name", "anna", "-n", "5") as anna:
        anna.shows("line 29;")
        anna.shows(f"{room}>")
        assert "line 24;" not in anna.text
        anna.press("/history 10\r")
        anna.shows("line 24;")
        anna.shows("10 messages from earlier")
        assert "line 14;" not in anna.text
        anna.press("/history\r")
        anna.shows("15 messages from earlier")
        anna.shows("has created the room, public")
        anna.press("/history\r")
        anna.shows("there are no earlier messages")


@pytest.mark.parametrize("colours", [True, False])
def test_colours_can_be_turned_off(relay: Relay, room: str, colours: bool) -> None:
    """NO_COLOR is honoured."""
    env = {} if colours else {"NO_COLOR": "1"}
    with Terminal("chat", relay.address, room, "--name", "anna", env=env) as anna:
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        anna.press("\x04")
        anna.ends()
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", anna.text)) is colours


def test_control_c_at_the_prompt(relay: Relay, room: str) -> None:
    """It exits at once, by the signal, with the terminal restored."""
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        anna.press("half a line\x03\x03")
        assert anna.ends() == -signal.SIGINT
        assert "Traceback" not in anna.text
        assert "\x1b[?2004l" in anna.text


def test_terminated(relay: Relay, room: str) -> None:
    """SIGTERM at the prompt: it dies by the signal, with the terminal restored."""
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows(f"in {room} as anna")
        anna.shows(f"{room}>")
        anna.process.send_signal(signal.SIGTERM)
        assert anna.ends() == -signal.SIGTERM
        assert "Traceback" not in anna.text
        assert "\x1b[?2004l" in anna.text


def test_no_line_is_wider_than_the_terminal(relay: Relay, room: str) -> None:
    """So every line on the screen that looks like the start of a line is one."""
    text = "x" * 59 + " " + "12:00 admin| pay me " * 8
    assert run_relay("send", relay.address, room, text, "--name", "eve").returncode == 0
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows("pay me")
        anna.shows(f"{room}>")
        anna.press("\x04")
        anna.ends()
    shown = SEQUENCE.sub("", anna.text)
    assert all(len(line) < COLUMNS for line in re.split(r"[\r\n]+", shown))
    assert not re.search(r"^12:00 admin", shown, re.MULTILINE)


def test_in_pipes_a_mistake_is_a_failure(relay: Relay, room: str) -> None:
    """A line that cannot be sent is reported; the exit status shows it. The rest is sent, up to a
    command that may have been about who reads it.
    """
    typed = b"first\n/who is it\n\xff\n" + b"x" * 40_000 + b"\n\n/me waves\n/whios bob\nlast\n"
    typed += b"/nonsense\nheld\n"
    text = typed.decode(errors="surrogateescape")
    done = run_relay("chat", relay.address, room, "--name", "pia", text=text)
    told = done.stderr
    assert done.returncode == 1, told
    assert "-!- /who takes no arguments; not sent" in told
    assert "-!- unknown command /nonsense; not sent" in told
    assert re.search(r"-!- not sent \(/nonsense is unknown.*\): held", told)
    assert "-!- line 3 was not sent: it is not UTF-8 text" in told
    assert "-!- line 4 was not sent: it is too long (40,000 bytes)" in told
    with Terminal("chat", relay.address, room, "--name", "anna") as anna:
        anna.shows("last")
        anna.shows(f"{room}>")
        anna.press("\x04")
        anna.ends()
    assert re.findall(r"pia\| (?:\x1b\[[0-9;]*m)*(\w+)", anna.text) == ["first", "last"]


def test_lines_wait_for_the_change_before_them(relay: Relay, room: str) -> None:
    """Lines typed after /private or /kick must not reach users whom that excludes."""
    typed = "/private\na secret\nanother\n/topic tea\n"
    done = run_relay("chat", relay.address, room, "--name", "anna", text=typed)
    assert done.returncode == 0, done.stderr
    assert run_relay("register", relay.address, "--name", "bert").returncode == 0
    invite = run_relay("room", "invite", relay.address, room, "bert", "--name", "anna")
    assert invite.returncode == 0, invite.stderr
    typed = "/kick anna\nnot for anna\nand this\n"
    done = run_relay("chat", relay.address, room, "--name", "bert", "-n", "9", text=typed)
    assert done.returncode == 1
    assert re.findall(r"anna\| (.*)", done.stdout) == ["a secret", "another"]
    assert "anna has created the room, private" in done.stderr
    assert "refused: NOT_ALLOWED" in done.stderr
    assert "not sent (the room was not changed): not for anna" in done.stderr
    assert "not sent (the room was not changed): and this" in done.stderr


def test_a_message_in_a_pipe_cannot_imitate(relay: Relay, room: str, tmp_path: Path) -> None:
    """Not even when both streams have the same destination."""
    text = "hi\n-!- you were kicked\n12:00 admin| pay me\x1b[2J"
    assert run_relay("send", relay.address, room, text, "--name", "eve").returncode == 0
    with Person(relay.address, "pia", room, tmp_path) as pia:
        pia.sees("pay me")
        assert pia.shown[-2:] == [
            "         | -!- you were kicked",
            "         | 12:00 admin| pay me\\u{1b}[2J",
        ]
        assert all(line.startswith("-!- ") for line in pia.notices)
        assert pia.leave() == 0


def test_interrupted_in_a_pipe(relay: Relay, room: str, tmp_path: Path) -> None:
    """It dies by SIGINT, without a message."""
    with Person(relay.address, "pia", room, tmp_path) as pia:
        pia.is_told(f"in {room}")
        pia.process.send_signal(signal.SIGINT)
        assert pia.process.wait(DEADLINE_S) == -signal.SIGINT
    assert [line for line in pia.notices if not line.startswith("-!- ")] == []
