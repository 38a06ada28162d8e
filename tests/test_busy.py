"""The busy machine, ``tests.support.busy``, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.burners import BURNER
from tests.support.cluster import COMMAND_S, wait_until
from tests.support.programs import run_pytest

TEST = f"""
import os, time, psutil
PROGRAM = {BURNER!r}

def burners():
    beside = (os.getpid(), os.getppid())  # in the latter, tests are shared out
    children = [child for pid in beside for child in psutil.Process(pid).children()]
    return [child for child in children if PROGRAM in child.cmdline()]

def test_it():
    assert len(found := burners()) == 1
    with open("burners", "w") as file:
        print(*(child.pid for child in found), file=file)
"""


@pytest.mark.parametrize("flags", [[], ["-n1"]], ids=["alone", "shared out"])
def test_they_run_beside_the_tests(tmp_path: Path, flags: list[str]) -> None:
    """Once, however many processes the tests are shared out to, and no longer than they."""
    (tmp_path / "test_it.py").write_text(TEST)
    done = run_pytest(tmp_path, "-p", "tests.support.busy", "--burners", "1", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    pids = [int(pid) for pid in (tmp_path / "burners").read_text().split()]
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), "their end")


def test_one_whose_parent_ends_while_it_starts_ends_too() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ""])
    parent.wait()
    burner = [sys.executable, "-c", BURNER, str(parent.pid)]
    subprocess.run(burner, check=True, timeout=COMMAND_S)
