"""``relay send``: what arrives, and what the status says."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from tests.support.cluster import Relay, relay_command, run_relay
from tests.support.tails import Tail


def send(relay: Relay, room: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Send bytes of input."""
    return subprocess.run(
        relay_command("send", relay.address, room),
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"\n\none\n\n", ["", "", "one", ""]),
        (b"a\tb \n  c\r\n", ["a\tb ", "  c\r"]),
        (b"x" * 32_768 + b"\n", ["x" * 32_768]),
        ("søme ✓ \x1b[2J\n".encode(), ["søme ✓ \x1b[2J"]),
    ],
)
def test_lines_arrive_as_they_are(relay: Relay, room: str, data: bytes, texts: list[str]) -> None:
    """Empty ones too; only the newline that ends the last one adds nothing."""
    done = send(relay, room, data)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(len(texts)) == texts


def test_nothing_to_send_is_success(relay: Relay, room: str) -> None:
    """Of an empty input everything is stored."""
    assert send(relay, room, b"").returncode == 0


@pytest.mark.parametrize(
    ("unfit", "complaint"),
    [
        (b"x" * 32_769, b"relay: line 3 is too long: 32,769 bytes; a message has at most 32,768"),
        (b"x" * 200_000, b"relay: line 3 is too long: 200,000 bytes; a message has at most 32,768"),
        (b"ab\xff", b"relay: line 3 is not UTF-8 text (byte 3)"),
    ],
)
def test_a_line_that_cannot_be_sent(
    relay: Relay, room: str, unfit: bytes, complaint: bytes
) -> None:
    """It is named; the lines before it are stored, those behind it are not; the status is 1."""
    done = send(relay, room, b"one\ntwo\n" + unfit + b"\nfour\n")
    assert done.returncode == 1
    assert done.stderr == complaint + b"; the lines before it are stored\n"
    assert run_relay("send", relay.address, room, "last").returncode == 0
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(3) == ["one", "two", "last"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the streams")
def test_closed_streams(relay: Relay, room: str) -> None:
    """Without stdin there is nothing to read; without any stream a text is sent all the same."""
    command = shlex.join(relay_command("send", relay.address, room))
    for redirected in (f"{command} <&-", f"{command} text <&- >&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", redirected], capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(1) == ["text"]


def test_a_text_is_one_message(relay: Relay, room: str) -> None:
    """With its newlines; standard input is left alone."""
    done = run_relay("send", relay.address, room, "one\ntwo", text="not this\n")
    assert done.returncode == 0, done.stderr
    with Tail(relay.address, room, "--since", "0", "--name", "reader") as tail:
        assert tail.has(1) == ["one\ntwo"]


def test_a_text_that_is_too_long(relay: Relay, room: str) -> None:
    """Refused here, before anything is sent."""
    done = run_relay("send", relay.address, room, "x" * 32_769)
    assert done.returncode == 1
    assert done.stderr.startswith("relay: TEXT is too long: 32,769 bytes")


def test_the_name_that_was_given(relay: Relay, room: str) -> None:
    """Is the sender's; in small letters."""
    assert run_relay("send", relay.address, room, "x", "--name", "Sender-1").returncode == 0
    with Tail(relay.address, room, "--since", "0") as tail:
        tail.has(1)
        assert tail.entries[0]["sender"] == "sender-1"
