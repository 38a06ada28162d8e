"""A run of the swarm in a process of its own: Locust must never come into the tests' process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cluster import ROOT

TIMEOUT_S = 90.0


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


def run_program(name: str, scratch: Path, *flags: str) -> Run:
    """Run one of the programs of ``loadtest`` to its end."""
    summary = scratch / "summary.json"
    command = [sys.executable, "-m", f"loadtest.{name}", "--json-summary", str(summary), *flags]
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
        output, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.terminate()  # it ends Locust, which has a session of its own
        process.wait(TIMEOUT_S)
    found = json.loads(summary.read_text()) if summary.exists() else {}
    return Run(process.returncode, output, found)
