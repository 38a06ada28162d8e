"""The commands of docs/operations.md, "Runbooks", run as they are written, on a relay."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from relay import BlockingClient
from tests.support.cluster import ROOT, Relay, run_relay, wait_until

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
RUNBOOKS = PAGE.partition("\n## Runbooks\n")[2].partition("\n## ")[0]
PAUSES = {"drain"}
"""After this the relay has to have ended before anything else is done."""


def commands(heading: str) -> list[list[str]]:
    """The lines of code below a heading."""
    text = RUNBOOKS.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    return [shlex.split(line) for line in text.splitlines() if line.startswith("    ")]


def test_which_there_are() -> None:
    headings = [line[4:] for line in RUNBOOKS.splitlines() if line.startswith("### ")]
    assert headings == [
        "The disk is full", "The key is lost, or stolen", "Restore", "Upgrade, and back",
        "An attack", "A slow client",
    ]  # fmt: skip
    assert sum(len(commands(heading)) for heading in headings) >= 12


@pytest.mark.parametrize(
    "heading",
    ["The key is lost, or stolen", "Restore", "Upgrade, and back", "An attack", "A slow client"],
)
def test_its_commands_do_what_they_say(tmp_path: Path, heading: str) -> None:
    data, backups = tmp_path / "relay", tmp_path / "backups"
    backups.mkdir()
    with Relay(data, workers=2) as relay, BlockingClient(relay.address, name="alice") as alice:
        alice.send("lobby", "kept")
        made = run_relay("backup", "create", backups / "2026-11-26", "--data", data)
        assert made.returncode == 0, made.stderr
        for words in commands(heading):
            words = [
                word.replace("/var/lib/relay", str(data)).replace("/backups", str(backups))
                for word in words
            ]
            if words[0] == "relay":
                done = run_relay(*words[1:])
            else:
                done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (words, done.stderr)
            if PAUSES & set(words):
                wait_until(lambda: not relay.running, "the end of the relay")
        if not relay.running:
            relay.stop()
            relay.start()
        assert alice.send("lobby", "and on it goes").seq > 2
