"""The programs, run outside the environment that ``make`` sets up."""

from __future__ import annotations

import json
import os
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


def test_figures_of_another_machine_are_compared_and_called_not_comparable(tmp_path: Path) -> None:
    _bench(tmp_path, "--benchmark-save=then", "-k", "test_pack_ack")
    (saved,) = tmp_path.glob("**/*_then.json")
    facts = json.loads(saved.read_text("utf-8"))
    facts["machine_info"]["node"] = "elsewhere"
    facts["machine_info"]["relay"] |= {"commit": "c0ffee", "kernel": "1.2.13"}
    saved.write_text(json.dumps(facts), "utf-8")

    shown = _bench(tmp_path, "--benchmark-compare", "-k", "test_pack_ack")

    (line,) = (line for line in shown.splitlines() if line.startswith("compared with"))
    assert line.startswith("compared with a run of commit c0ffee, which is not comparable: kernel")


def _bench(saved: Path, *more: str) -> str:
    """Run some benchmarks of ours, saved in a directory; return what is printed."""
    command = [
        sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"),
        str(ROOT / "benchmarks/micro/test_wire.py"), "-q", f"--benchmark-storage=file://{saved}",
        "--benchmark-max-time=0.01", "-p", "no:randomly", *more,
    ]  # fmt: skip
    # It measures: it must not think that it is one of the processes of this run.
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=saved,  # pytest-benchmark names what it compares with as a path from here
        env=others,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
