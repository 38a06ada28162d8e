"""The programs, run outside the environment that ``make`` sets up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["growth", "paired", "peers", "search", "stalls", "storm"])
def test_outside_the_environment_it_says_what_to_do(name: str) -> None:
    command = [sys.executable, "-S", "-m", f"benchmarks.{name}", "--help"]  # -S: nothing installed
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"{ROOT}/.venv/bin/python -m benchmarks.{name}")


@pytest.mark.parametrize("name", ["report", "report.own", "growth.report", "startup"])
def test_what_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    command = [sys.executable, "-m", f"benchmarks.{name}", str(nothing)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"python -m benchmarks.{name}: error: ")
    assert str(nothing) in line
