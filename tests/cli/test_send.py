"""``relay send``: what is stored, and the exit status."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from relay.cli.main import relay as relay_group
from relay.cli.process.exits import guarded
from tests.support.cluster import (
    COMMAND_S,
    DEADLINE_S,
    Relay,
    relay_command,
    run_relay,
    start_client,
)
from tests.support.loaded import Forked
from tests.support.tails import Tail

LIMIT_S = 8.0
"""A server on a busy machine stores a line in far less."""


def send(relay: Relay, room: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Send the bytes on standard input."""
    return subprocess.run(
        relay_command("send", relay.address, room),
        input=data,
        capture_output=True,
        timeout=COMMAND_S,
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
    """Empty ones too; the newline of the last line adds no message."""
    done = send(relay, room, data)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(len(texts)) == texts


def test_nothing_to_send_is_success(relay: Relay, room: str) -> None:
    """All lines of an empty input are stored."""
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
    """The error has the line; lines before it are stored, those after it are not; the
    status is 1.
    """
    done = send(relay, room, b"one\ntwo\n" + unfit + b"\nfour\n")
    assert done.returncode == 1
    assert done.stderr == complaint + b"; the lines before it are stored\n"
    assert run_relay("send", relay.address, room, "last").returncode == 0
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(3) == ["one", "two", "last"]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the streams")
def test_closed_streams(relay: Relay, room: str) -> None:
    """Without stdin there is no input; without any stream a text argument is sent all the same."""
    command = shlex.join(relay_command("send", relay.address, room))
    for redirected in (f"{command} <&-", f"{command} text <&- >&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", redirected], capture_output=True, timeout=COMMAND_S, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(1) == ["text"]


def test_a_text_is_one_message(relay: Relay, room: str) -> None:
    """With its newlines; standard input is not read."""
    done = run_relay("send", relay.address, room, "one\ntwo", text="not this\n")
    assert done.returncode == 0, done.stderr
    with Tail(relay.address, room, "--since", "0", "--name", "reader") as tail:
        assert tail.has(1) == ["one\ntwo"]


def test_a_text_that_is_too_long(relay: Relay, room: str) -> None:
    """Refused before a connection is made."""
    done = run_relay("send", relay.address, room, "x" * 32_769)
    assert done.returncode == 1
    assert done.stderr.startswith("relay: TEXT is too long: 32,769 bytes")


def test_the_name_that_was_given(relay: Relay, room: str) -> None:
    """It is the sender's name, in lower case."""
    assert run_relay("send", relay.address, room, "x", "--name", "Sender-1").returncode == 0
    with Tail(relay.address, room, "--since", "0") as tail:
        tail.has(1)
        assert tail.entries[0]["sender"] == "sender-1"


@pytest.mark.parametrize("text", ["-5", "--help"])
def test_a_text_like_an_option_needs_two_dashes(relay: Relay, room: str, text: str) -> None:
    """Without them nothing is sent, the status is not 0, and the error shows how; with them it is
    sent.
    """
    done = run_relay("send", relay.address, room, text)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "put -- before it: relay send ADDRESS ROOM -- TEXT" in done.stderr
    done = run_relay("send", relay.address, room, "--", text)
    assert (done.returncode, done.stderr) == (0, "")
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(1) == [text]


@pytest.mark.parametrize(
    "text", ["-5", "--help", "-h", "--no-such-option", "--version", "--name", "-n", "-x y"]
)
def test_every_text_like_an_option_gets_the_hint(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the parser makes of it, for every command that takes a text."""
    for *arguments, example in [
        ["send", "127.0.0.1:1", "lobby", text, "send ADDRESS ROOM -- TEXT"],
        ["room", "topic", "127.0.0.1:1", "lobby", text, "room topic ADDRESS ROOM -- TEXT"],
        ["room", "title", "127.0.0.1:1", "lobby", text, "room title ADDRESS ROOM -- TEXT"],
        ["device", "rename", "127.0.0.1:1", "key", text, "device rename ADDRESS DEVICE -- LABEL"],
        ["ctl", "room", "topic", "lobby", text, "ctl room topic ROOM -- TEXT"],
    ]:
        invoked = partial(relay_group.main, arguments, prog_name="relay", standalone_mode=False)
        assert guarded(invoked) == 2
        out, told = capsys.readouterr()
        assert out == ""
        assert f"put -- before it: relay {example}" in told


def test_nobody_listens_and_the_time_is_limited() -> None:
    """It prints once why it waits, and then that it gives up."""
    done = run_relay("send", "127.0.0.1:1", "lobby", "x", "--timeout", "4")
    assert done.returncode == 1
    refused = "cannot connect to 127.0.0.1, port 1: Connection refused"
    assert done.stderr.splitlines() == [
        f"-!- waiting: {refused}",
        f"relay: gave up after 4 s: {refused}",
    ]


def test_something_listens_that_never_answers() -> None:
    """The limit applies as well."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run_relay("send", place, "lobby", "x", "--timeout", "4")
    assert done.returncode == 1
    assert done.stderr == "relay: gave up after 4 s: no answer from the server\n"


def test_the_first_contact_is_waited_for(tmp_path: Path, room: str) -> None:
    """A relay that starts only after ``send``: everything is stored once it is there."""
    with Relay(tmp_path / "data") as first:
        address, port = first.address, first.port
    with subprocess.Popen(
        relay_command("send", address, room),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("one\ntwo\n")
        process.stdin.close()
        assert process.stderr.readline().startswith("-!- waiting: cannot connect to 127.0.0.1")
        with Relay(tmp_path / "data", bind=f"127.0.0.1:{port}") as second:
            assert process.wait(DEADLINE_S) == 0
            assert process.stderr.read() == "-!- connected\n"
            with Tail(second.address, room, "--since", "0") as tail:
                assert tail.has(2) == ["one", "two"]


def test_the_time_limit_is_for_the_server_alone(relay: Relay, room: str) -> None:
    """Input may take longer, repeatedly; a server that stores nothing may not."""
    with subprocess.Popen(
        relay_command("send", relay.address, room, "--timeout", f"{LIMIT_S:g}"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        with Tail(relay.address, room, "--since", "0") as tail:
            for number in range(2):
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(LIMIT_S + 0.5)
                process.stdin.write(f"{number}\n")
                process.stdin.flush()
                tail.has(number + 1)
            process.stdin.close()
            assert process.wait(DEADLINE_S) == 0


def test_a_server_that_stops_storing(tmp_path: Path, room: str) -> None:
    """It hangs: lines not acknowledged within the limit are reported, and the status is 1."""
    with (
        Relay(tmp_path / "data") as hanging,
        subprocess.Popen(
            relay_command("send", hanging.address, room, "--timeout", f"{LIMIT_S:g}"),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stderr is not None
        with Tail(hanging.address, room, "--since", "0") as tail:
            process.stdin.write("one\n")
            process.stdin.flush()
            tail.has(1)
        stopped = [hanging.pid, *(child.pid for child in hanging.children())]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            process.stdin.write("two\n")
            process.stdin.flush()
            code = process.wait(DEADLINE_S)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert code == 1
        assert process.stderr.read().splitlines()[-1] == (
            f"relay: gave up after {LIMIT_S:g} s: the server has not stored everything"
        )


@contextlib.contextmanager
def sending(relay: Relay, room: str) -> Iterator[subprocess.Popen[str] | Forked]:
    """Start ``send`` of a user in another user's room, and wait until its first line is stored."""
    for name in ("anna", "bert"):
        assert run_relay("register", relay.address, "--name", name).returncode == 0
    assert run_relay("send", relay.address, room, "mine", "--name", "anna").returncode == 0
    with starting(relay, room, "bert", 2) as process:
        yield process


@contextlib.contextmanager
def starting(
    relay: Relay, room: str, name: str, count: int
) -> Iterator[subprocess.Popen[str] | Forked]:
    """Start ``send``, and wait until a room has so many messages with its first line."""
    process = start_client("send", relay.address, room, "--name", name, typed=True)
    try:
        assert process.stdin is not None
        process.stdin.write("one\n")
        process.stdin.flush()
        with Tail(relay.address, room, "--since", "0") as tail:
            tail.has(count)
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def refused_at(process: subprocess.Popen[str] | Forked, line: str) -> str:
    """Give the process another line, which ends it; return what it printed about that."""
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.wait(DEADLINE_S) == 1
    return process.stderr.read()


def test_a_refusal_ends_it_without_another_line(relay: Relay, room: str) -> None:
    """A program that writes a line now and then learns of it at once, not with its next line."""
    with sending(relay, room) as process:
        banned = run_relay("room", "ban", relay.address, room, "bert", "--name", "anna")
        assert banned.returncode == 0, banned.stderr
        told = refused_at(process, "two")
        assert told.startswith("relay: line 2 was not stored: BANNED: ")
        assert told.count("\n") == 1


def in_the_next_room(process: subprocess.Popen[str] | Forked, relay: Relay, room: str) -> None:
    """Somebody else creates the next room of the name, and the process gets another line."""
    for name, *command in (("anna", "delete", "--yes"), ("carl", "create")):
        ended = run_relay("room", command[0], relay.address, room, *command[1:], "--name", name)
        assert ended.returncode == 0, ended.stderr
    assert refused_at(process, "a secret") == (
        "relay: line 2 was not stored: NO_SUCH_ROOM: "
        "that room no longer exists; join again for another one of its name\n"
    )
    found = run_relay("history", relay.address, room, "--name", "carl")
    assert "secret" not in found.stdout


def test_a_pipe_is_for_the_room_of_its_beginning(relay: Relay, room: str) -> None:
    """Not for the next one of that name, which may be a stranger's."""
    run_relay("register", relay.address, "--name", "carl")
    with sending(relay, room) as process:
        in_the_next_room(process, relay, room)


def test_a_pipe_is_for_the_room_that_it_has_begun(relay: Relay, room: str) -> None:
    """There was none before its first line."""
    for name in ("anna", "carl"):
        run_relay("register", relay.address, "--name", name)
    with starting(relay, room, "anna", 1) as process:
        in_the_next_room(process, relay, room)


def test_the_end_of_the_session_ends_it_without_another_line(relay: Relay, room: str) -> None:
    """Kicked by an operator, with no line pending."""
    with sending(relay, room) as process:
        kicked = run_relay("ctl", "--data", relay.data, "kick", "--name", "bert")
        assert kicked.returncode == 0, kicked.stderr
        assert process.stderr is not None
        assert process.wait(DEADLINE_S) == 1
        told = process.stderr.read()
        assert told.startswith("relay: KICKED: ")
        assert told.count("\n") == 1
