"""A short Python program in an interpreter of its own, run to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.cluster import ROOT


def run_program(
    program: str, *arguments: str | Path, stdin: str | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run ``python -c program arguments`` at the project's root; its output is text.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=ROOT,
    )
