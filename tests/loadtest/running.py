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


def run_swarm(address: str, scratch: Path, *flags: str, locustfile: Path | None = None) -> Run:
    """Run the swarm without a web page, to its end. ``locustfile``: instead of the scenarios."""
    summary = scratch / "summary.json"
    command = [sys.executable, "-m", "loadtest.run", "--host", address, "--headless"]
    command += ["--only-summary", "--json-summary", str(summary), *flags]
    if locustfile is not None:
        command += ["--locustfile", str(locustfile)]
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
