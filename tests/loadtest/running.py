"""A run of the swarm in a process of its own: Locust must never come into the tests' process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cluster import ROOT, collect, wait_until

TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Run:
    """What a run left."""

    status: int
    output: str
    summary: dict[str, Any]
    """Empty when none was written."""


def run_swarm(address: str, scratch: Path, *flags: str) -> Run:
    """Run the swarm on a relay, without a web page, to its end."""
    return run_program("run", scratch, "--host", address, "--headless", "--only-summary", *flags)


def run_until(seen: Callable[[Running], object], address: str, scratch: Path, *flags: str) -> Run:
    """Run the swarm on a relay until something is seen, and end it then, as by Ctrl-C."""
    given = ("--host", address, "--headless", "--only-summary", "--run-time", "10m", *flags)
    with started("run", scratch, *given) as running:
        running.wait_for(seen)
        running.process.terminate()
        return running.end()


def run_program(name: str, scratch: Path, *flags: str) -> Run:
    """Run one of the programs of ``loadtest`` to its end."""
    with started(name, scratch, *flags) as running:
        return running.end()


class Running:
    """A program of ``loadtest`` that runs."""

    def __init__(self, process: subprocess.Popen[str], summary: Path) -> None:
        self.process = process
        self.lines: list[str] = []
        """What it has printed so far."""
        self._reader = collect(process.stdout, self.lines)
        self._summary = summary

    def printed(self, text: str) -> bool:
        """Tell whether a line has this."""
        return any(text in line for line in self.lines)

    def wait_for(self, seen: Callable[[Running], object]) -> None:
        """Wait until something is seen. Raises AssertionError: it has ended before."""

        def seen_or_ended() -> object:
            return seen(self) or self.process.poll() is not None

        wait_until(seen_or_ended, "what is to be seen", TIMEOUT_S)
        assert self.process.poll() is None, "\n".join(self.lines)

    def end(self) -> Run:
        """Wait for its end."""
        status = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        found = json.loads(self._summary.read_text()) if self._summary.exists() else {}
        return Run(status, "\n".join(self.lines), found)


@contextlib.contextmanager
def started(name: str, scratch: Path, *flags: str) -> Iterator[Running]:
    """Start one of the programs of ``loadtest``; nothing of it is left afterwards."""
    summary = scratch / "summary.json"
    command = [sys.executable, "-m", f"loadtest.{name}", *flags]
    if name != "curve":  # it has one for each of its runs
        command += ["--json-summary", str(summary)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    running = Running(process, summary)
    try:
        yield running
    finally:
        process.terminate()  # it ends Locust, which has a session of its own
        running.end()
