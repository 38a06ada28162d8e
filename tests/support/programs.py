"""A short Python program, or a pytest, in an interpreter of its own, run to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.cluster import COMMAND_S, ROOT


def run_program(
    program: str, *arguments: str | Path, stdin: str | None = None
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
        timeout=COMMAND_S,
        check=False,
        cwd=ROOT,
    )


def run_pytest(project: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in another project's directory, where the packages of this one can be imported.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    others = [f"-pno:{plugin}" for plugin in ("locust", "randomly", "asyncio")]
    # In the usual place it would delete, before it ends, what earlier runs of all tests left there.
    temporary = f"--basetemp={project / '.temporary'}"
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", temporary, *others, *flags],
        cwd=project,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
    )
