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

from tests.support.cluster import ROOT

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


def longer(
    seen: Callable[[dict[str, int]], object], seconds: int, run: Callable[[int], Run]
) -> Run:
    """Run for so long, and again for longer if what its test is about was not seen.

    On a slow machine little may happen in a few seconds.

    Args:
        seen: given what was counted.
        seconds: for the first run; those that follow take 5 and 15 times as long.
        run: runs one of the programs for so many seconds.
    """
    for factor in (1, 5, 15):
        done = run(factor * seconds)
        if seen(done.summary.get("counts", {})):
            break
    return done


def run_until(
    seen: Callable[[dict[str, int]], object], seconds: int, address: str, scratch: Path, *flags: str
) -> Run:
    """Run the swarm on a relay as ``longer`` does."""
    return longer(
        seen, seconds, lambda s: run_swarm(address, scratch, *flags, "--run-time", f"{s}s")
    )


def run_program(name: str, scratch: Path, *flags: str) -> Run:
    """Run one of the programs of ``loadtest`` to its end."""
    with started(name, scratch, *flags) as running:
        return running.end()


class Running:
    """A program of ``loadtest`` that runs."""

    def __init__(self, process: subprocess.Popen[str], summary: Path) -> None:
        self.process = process
        self._summary = summary

    def end(self) -> Run:
        """Wait for its end."""
        output, _ = self.process.communicate(timeout=TIMEOUT_S)
        found = json.loads(self._summary.read_text()) if self._summary.exists() else {}
        return Run(self.process.returncode, output, found)


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
    try:
        yield Running(process, summary)
    finally:
        process.terminate()  # it ends Locust, which has a session of its own
        process.wait(TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()
