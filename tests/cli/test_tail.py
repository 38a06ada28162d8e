"""``relay tail``: JSON, text, and how it ends."""

from __future__ import annotations

import base64
import re
import signal
import subprocess

import pytest

from relay.cli.main import relay as relay_group
from relay.cli.process.exits import guarded
from relay.client.aio import Client
from tests.support.cluster import DEADLINE_S, Relay, relay_command, run_relay
from tests.support.tails import Tail

FIELDS = ["room", "epoch", "seq", "prev", "time", "sender", "device", "content_type", "body"]


def test_the_json_schema(relay: Relay, room: str) -> None:
    """Exactly the documented fields, in their order and form."""
    assert run_relay("send", relay.address, room, "one", "--name", "anna").returncode == 0
    assert run_relay("send", relay.address, room, "two", "--name", "anna").returncode == 0
    with Tail(relay.address, room, "--since", "0") as tail:
        tail.has(2)
        first, second = tail.entries
    assert list(first) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert re.fullmatch(r"[0-9a-f]{16}", first["epoch"])
    assert first["epoch"] == second["epoch"]
    assert (first["seq"], first["prev"], second["prev"]) == (2, 1, 2)
    assert first["room"] == room
    assert first["sender"] == "anna"
    assert first["content_type"] == "text/plain"
    assert (first["body"], second["body"]) == ("one", "two")


async def test_bodies_that_are_not_text(relay: Relay, room: str) -> None:
    """Base64, marked as such: also bytes that only claim to be text."""
    async with Client(relay.address, name="anna") as client:
        await client.send(room, b"\x00\xff", content_type="application/octet-stream")
        await client.send(room, b"\xff", content_type="text/plain")
        await client.send(room, "✓", content_type="text/markdown")
    with Tail(relay.address, room, "--since", "0") as tail:
        tail.has(3)
        assert [entry.get("encoding") for entry in tail.entries] == ["base64", "base64", None]
        assert base64.b64decode(tail.entries[0]["body"]) == b"\x00\xff"
        assert base64.b64decode(tail.entries[1]["body"]) == b"\xff"
        assert tail.entries[2]["body"] == "✓"


def test_json_lines_are_harmless_and_exact(relay: Relay, room: str) -> None:
    """It has no control characters, and decoding it gives the exact text."""
    text = '\x1b[2J\x7f\x9b\u202e\u2028\U000e0041\u3164é✓👩‍👩‍👧\n\t\\"'
    assert run_relay("send", relay.address, room, text).returncode == 0
    with subprocess.Popen(
        relay_command("tail", relay.address, room, "--json", "--since", "0"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().removesuffix("\n")
        process.terminate()
    assert "\\u001b[2J\\u007f\\u009b\\u202e\\u2028\\udb40\\udc41\\u3164é✓" in line
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(1) == [text]


@pytest.mark.parametrize(
    ("arguments", "seqs"),
    [(["--since", "0"], [2, 3, 4]), (["--since", "3"], [4]), (["-n", "2"], [3, 4]), ([], [])],
)
def test_where_it_begins(relay: Relay, room: str, arguments: list[str], seqs: list[int]) -> None:
    """By default with new messages."""
    assert run_relay("send", relay.address, room, text="1\n2\n3\n").returncode == 0
    with Tail(relay.address, room, *arguments) as tail:
        tail.has(len(seqs))
        # Without old messages it does not show when it has joined: send until it prints one.
        for _ in range(50):
            assert run_relay("send", relay.address, room, "more").returncode == 0
            if len(tail.entries) > len(seqs):
                break
        assert tail.has(len(seqs) + 1)[len(seqs)] == "more"
        assert [entry["seq"] for entry in tail.entries[: len(seqs)]] == seqs


def follow(relay: Relay, room: str, *arguments: str) -> subprocess.Popen[str]:
    """Run ``relay tail`` on a pipe and wait for its first line."""
    assert run_relay("send", relay.address, room, "one\ntwo\x1b", "--name", "anna").returncode == 0
    process = subprocess.Popen(
        relay_command("tail", relay.address, room, "--since", "0", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()  # so each line is flushed
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
def test_being_stopped(relay: Relay, room: str, number: signal.Signals, code: int) -> None:
    """TERM is the normal way; after INT the status shows it. Both print nothing."""
    process = follow(relay, room, "--json")
    process.send_signal(number)
    _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    assert told == ""


def test_the_reader_goes_away(relay: Relay, room: str) -> None:
    """As ``relay tail | head -1``: it ends at once, without another message, and prints no
    error.
    """
    process = follow(relay, room)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(DEADLINE_S) == -signal.SIGPIPE
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""


def test_text_for_people(relay: Relay, room: str) -> None:
    """Date, time, sender, text; further lines are indented; control characters are escaped."""
    process = follow(relay, room)
    assert process.stdout is not None
    assert process.stdout.readline() == " " * 24 + "| two\\u{1b}\n"
    assert run_relay("send", relay.address, room, "three", "--name", "anna").returncode == 0
    line = process.stdout.readline()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d anna\| three\n", line)
    process.terminate()
    process.communicate(timeout=DEADLINE_S)


def test_since_an_epoch_and_a_number(relay: Relay, room: str) -> None:
    """As in its JSON: with the same epoch nothing is repeated, with another one a gap is
    reported.
    """
    assert run_relay("send", relay.address, room, text="one\ntwo\nthree\n").returncode == 0
    with Tail(relay.address, room, "--since", "0") as tail:
        tail.has(3)
        epoch = tail.entries[0]["epoch"]
    with Tail(relay.address, room, "--since", f"{epoch}:3") as tail:
        assert tail.has(1) == ["three"]
        assert "gap" not in tail.entries[0]
    with Tail(relay.address, room, "--since", f"{'0' * 15}1:2") as tail:
        assert tail.has(3) == ["one", "two", "three"]
        assert tail.entries[0]["room"] == room
        assert tail.entries[0]["gap"]["after"] == {"epoch": f"{'0' * 15}1", "seq": 2}
        assert tail.entries[0]["gap"]["reason"] == "epoch"


@pytest.mark.parametrize(
    "place", ["", "x", "-1", "1.5", "abc:1", f"{'0' * 16}:", f"{'0' * 16}:x", "9" * 19, "\u0661"]
)
def test_since_no_place(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A one-line error with the two forms."""
    arguments = ["tail", "127.0.0.1", "lobby", "--since", place]
    assert guarded(lambda: relay_group.main(arguments, standalone_mode=False)) == 2
    told = capsys.readouterr().err
    assert "is neither a message number nor EPOCH:SEQ" in told.splitlines()[-1]


@pytest.mark.parametrize("json", [["--json"], []])
def test_being_put_out_of_the_room(relay: Relay, room: str, json: list[str]) -> None:
    """No more messages will come: it ends with a one-line reason."""
    for name in ("anna", "bert"):
        assert run_relay("register", relay.address, "--name", name).returncode == 0
    process = follow(relay, room, "--name", "bert", *json)
    try:
        banned = run_relay("room", "ban", relay.address, room, "bert", "--name", "anna")
        assert banned.returncode == 0, banned.stderr
        _, told = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1
    assert told.startswith(f"relay: no longer in {room}: ")
    assert told.count("\n") == 1
