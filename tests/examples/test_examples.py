"""Each example is run as a reader would run it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import BlockingClient, Message
from tests.support.cluster import COMMAND_S, DEADLINE_S, ROOT, Relay, wait_until

GUIDE = (ROOT / "docs" / "client.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay for all examples."""
    with Relay(tmp_path_factory.mktemp("relay") / "data") as running:
        yield running


PYTHON = (sys.executable, "-X", "dev", "-W", "error")
"""Python's warnings about a program or the library are errors."""


def run(*args: str | os.PathLike[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program to its end, from the checkout."""
    return subprocess.run(
        [*PYTHON, *args], capture_output=True, text=True, timeout=COMMAND_S, check=False, cwd=ROOT,
        input=text,
    )  # fmt: skip


def test_the_programs_of_the_guide_work(relay: Relay) -> None:
    """In their order: the second reads what the first has sent."""
    assert len(PROGRAMS) == 5
    printed = []
    for program in PROGRAMS:
        done = run("-c", program, relay.address)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed == [
        "stored as 2\n2 alice hello\n",
        "2 alice hello\n",
        "dora hello\n['hello', 'hello, Dora']\n",
        "paid once\n",
        "3 pay 6\n",
    ]


def test_archive_goes_on_where_it_stopped(relay: Relay, tmp_path: Path) -> None:
    """Also after a crash within a line: each message once, in order."""
    archive = tmp_path / "archive.jsonl"
    script = ROOT / "examples" / "archive.py"
    with BlockingClient(relay.address) as client:
        for n in range(3):
            client.send("archived", f"m{n}")
        done = run(script, relay.address, "archived", archive, "3")
        assert done.returncode == 0, done.stderr
        archive.write_text(archive.read_text()[:-10])
        client.send("archived", "m3")
        done = run(script, relay.address, "archived", archive, "3")
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in archive.read_text().splitlines()]
    assert [(row["seq"], row["text"]) for row in rows] == [(n + 2, f"m{n}") for n in range(4)]


def test_a_client_written_from_the_protocol_page(relay: Relay, tmp_path: Path) -> None:
    """It does not use the library, and both understand each other."""
    script = ROOT / "examples" / "from_the_page.py"
    assert re.search(r"^\s*(from|import) relay", script.read_text(), re.MULTILINE) is None
    with BlockingClient(relay.address, name="erin") as client:
        first = client.send("page", "from the library")
    key = tmp_path / "device"
    done = run(script, relay.address, "stranger", "page", "from the page \u2603", key)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert lines == ["page 2 erin| from the library", "page 3 stranger| from the page \u2603"]
    with BlockingClient(relay.address, name="erin") as client:
        client.join("page", since=2)
        message = next(e for e in client.events(timeout=DEADLINE_S) if isinstance(e, Message))
        client.post("page", "an answer", reply_to=first.cursor)
        client.react(message, "+1")
        client.send("@stranger", "not shown in the room")
    assert (message.sender, message.text) == ("stranger", "from the page \u2603")
    done = run(script, relay.address, "stranger", "page", "after others", key)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert lines[2:] == ["page 4 erin| an answer", "page 6 stranger| after others"]
    refused = run(script, relay.address, "root", "page", "", tmp_path / "root")
    assert refused.stderr.startswith("refused: error code 3, "), "NAME_INVALID"


@contextlib.contextmanager
def running(*args: str | os.PathLike[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program until Ctrl-C; its first line has been printed."""
    with subprocess.Popen(
        [*PYTHON, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as program:
        try:
            assert program.stdout is not None
            assert " is in " in program.stdout.readline()
            yield program
        finally:
            program.send_signal(signal.SIGINT)
            _, stderr = program.communicate(timeout=COMMAND_S)
    assert "Warning" not in stderr
    assert program.returncode == -signal.SIGINT, stderr


def said(client: BlockingClient, room: str, count: int) -> list[tuple[str, str]]:
    """Return the first messages of a room."""
    with client.room(room, since=0) as joined:
        return [(message.sender, message.text) for _, message in zip(range(count), joined)]  # noqa: B905


def test_echo_bot_answers(relay: Relay) -> None:
    """Messages that begin with its command, and no others."""
    with (
        running(ROOT / "examples" / "echo_bot.py", relay.address, "echoes"),
        BlockingClient(relay.address, name="dora") as client,
    ):
        client.send("echoes", "hello")
        client.send("echoes", "!echo again")
        assert said(client, "echoes", 3) == [
            ("dora", "hello"), ("dora", "!echo again"), ("echo-bot", "dora: again"),
        ]  # fmt: skip


def test_bridge_carries_both_ways(relay: Relay) -> None:
    """Each message once, without a loop."""
    with (
        running(ROOT / "examples" / "bridge.py", relay.address, "east", "west"),
        BlockingClient(relay.address, name="emma") as client,
    ):
        for n in range(3):
            client.send("east", f"e{n}")
        assert [text for _, text in said(client, "west", 3)] == [f"emma: e{n}" for n in range(3)]
        client.send("west", "w")
        assert said(client, "east", 4)[-1][1] == "emma: w"


def test_publisher_and_reader(relay: Relay, tmp_path: Path) -> None:
    """The reader is killed and started again: each message counts once."""
    file = tmp_path / "counts.json"
    published = 0

    def counted() -> int:
        return sum(json.loads(file.read_text())["counts"].values()) if file.exists() else 0

    for _ in range(3):
        lines = "".join(f"line {n}\n" for n in range(50))
        done = run(ROOT / "examples" / "publisher.py", relay.address, "lines", text=lines)
        assert (done.returncode, done.stdout) == (0, "everything is stored\n"), done.stderr
        wanted = published + 20  # in the middle
        published += 50
        with subprocess.Popen(
            [*PYTHON, ROOT / "examples" / "reader.py", relay.address, "lines", file], cwd=ROOT
        ) as reader:
            wait_until(lambda wanted=wanted: counted() >= wanted, "the reader")  # type: ignore[misc]
            reader.kill()
    with subprocess.Popen(
        [*PYTHON, ROOT / "examples" / "reader.py", relay.address, "lines", file], cwd=ROOT
    ) as reader:
        wait_until(lambda: counted() >= published, "the reader")
        reader.kill()
    assert counted() == published
