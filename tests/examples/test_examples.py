"""Each example is run as a reader would run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import BlockingClient, Message
from tests.support.cluster import Relay, wait_until

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "client.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay for all examples."""
    with Relay(tmp_path_factory.mktemp("relay") / "data") as running:
        yield running


def run(*args: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, from the checkout."""
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )


def test_the_programs_of_the_guide_work(relay: Relay) -> None:
    """In their order: the second reads what the first has sent."""
    assert len(PROGRAMS) == 4
    printed = []
    for program in PROGRAMS:
        done = run("-c", program, relay.address)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed == [
        "stored as 1\n1 alice hello\n",
        "1 alice hello\n",
        "paid once\n",
        "2 pay 6\n",
    ]


def test_archive_goes_on_where_it_stopped(relay: Relay, tmp_path: Path) -> None:
    """Also after a crash in the middle of a line: each message once, in order."""
    archive = tmp_path / "archive.jsonl"
    script = ROOT / "examples" / "archive.py"
    with BlockingClient(relay.address) as client:
        for n in range(3):
            client.send("archived", f"m{n}")
        done = run(script, relay.address, "archived", archive, "0.5")
        assert done.returncode == 0, done.stderr
        archive.write_text(archive.read_text()[:-10])
        client.send("archived", "m3")
        done = run(script, relay.address, "archived", archive, "0.5")
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in archive.read_text().splitlines()]
    assert [(row["seq"], row["text"]) for row in rows] == [(n + 1, f"m{n}") for n in range(4)]


def test_a_client_written_from_the_protocol_page(relay: Relay) -> None:
    """It owes nothing to the library, and both understand each other."""
    script = ROOT / "examples" / "from_the_page.py"
    assert re.search(r"^\s*(from|import) relay", script.read_text(), re.MULTILINE) is None
    with BlockingClient(relay.address, name="erin") as client:
        client.send("page", "from the library")
    done = run(script, relay.address, "stranger", "page", "from the page \u2603")
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines()]
    assert lines == ["page 1 erin| from the library", "page 2 stranger| from the page \u2603"]
    with BlockingClient(relay.address, name="erin") as client:
        client.join("page", since=1)
        (message,) = (e for e in client.events(timeout=0.5) if isinstance(e, Message))
    assert (message.sender, message.text) == ("stranger", "from the page \u2603")


def test_echo_bot_answers(relay: Relay) -> None:
    """What begins with its command, and nothing else."""
    bot = subprocess.Popen(
        [sys.executable, ROOT / "examples" / "echo_bot.py", relay.address, "echoes"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    said: list[str] = []
    assert bot.stdout is not None
    reader = threading.Thread(target=said.extend, args=(bot.stdout,))
    reader.start()
    try:
        with BlockingClient(relay.address, name="dora") as client:
            client.join("echoes")
            wait_until(
                lambda: "echo-bot" in {m.name for m in client.who("echoes").members}, "the bot"
            )
            client.send("echoes", "hello")
            client.send("echoes", "!echo again")
            texts = []
            for event in client.events(timeout=20.0):
                if isinstance(event, Message):
                    texts.append((event.sender, event.text))
                    if event.sender == "echo-bot":
                        break
        assert texts == [
            ("dora", "hello"),
            ("dora", "!echo again"),
            ("echo-bot", "dora: again"),
        ]
    finally:
        bot.send_signal(signal.SIGINT)
        bot.wait(20)
        reader.join(20)
        bot.stdout.close()
