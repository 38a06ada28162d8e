"""The report of processor time, ``tests.support.cpu_report``, in a pytest of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.programs import run_pytest

USE = "import time\nwhile time.process_time() < 0.5:\n    pass\n"
ENDED = f"""
import subprocess, sys
def test_it():
    subprocess.run([sys.executable, "-c", {USE!r}], check=True)
"""
RUNNING = f"""
import subprocess, sys
import pytest

@pytest.fixture(scope="session", autouse=True)
def it():
    program = {USE!r} + "print(); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        yield
        process.communicate(b"end")

def test_it():
    pass
"""


@pytest.mark.parametrize("flags", [[], ["-n2"]], ids=["alone", "shared out"])
def test_what_a_test_starts_is_counted(tmp_path: Path, flags: list[str]) -> None:
    """Once, for the test that starts it, while it runs as well as when it has ended."""
    (tmp_path / "test_a.py").write_text(RUNNING)
    (tmp_path / "test_b.py").write_text(ENDED)
    (tmp_path / "test_c.py").write_text("def test_little():\n    pass\n")
    done = run_pytest(tmp_path, "-p", "tests.support.cpu_report", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"([0-9.]+) s  (\S+)$", done.stdout, re.MULTILINE)
    shown = {name: float(seconds) for seconds, name in found}
    files, tests = ["test_a.py", "test_b.py"], ["test_a.py::test_it", "test_b.py::test_it"]
    assert [sorted(list(shown)[:2]), sorted(list(shown)[3:5])] == [files, tests]
    assert [list(shown)[2], *list(shown)[5:]] == ["test_c.py", "test_c.py::test_little"]
    little = max(shown["test_c.py"], shown["test_c.py::test_little"])
    # The kernel accounts for whole ticks of each process.
    assert min(shown[name] for name in (*files, *tests)) > max(0.45, little)
