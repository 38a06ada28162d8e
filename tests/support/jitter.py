"""A pytest plugin: runs tests on a kernel that chooses other schedules than an idle one does.

    make test ARGS="-p tests.support.jitter tests/server"

In the processes of the tests and all that they start (``jitter.c``), threads and processes get the
CPU late, of several ready sockets one is told of and others later, streams arrive in pieces, writes
are taken in part, and syncing a file takes long. All of that happens on a busy machine, but seldom.
A C compiler builds the library.

What fails here depends on time, or is a race of the product. ``--jitter-seed`` repeats the choices
of a run. The kernel's own remain, so a failure comes again soon rather than at once.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import pytest

SEED: Final = "RELAY_JITTER"
SWITCH_S: Final = 1e-4
"""Python's threads take turns fifty times as often as usual."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run be repeated."""
    parser.addoption("--jitter-seed", type=int, help="default: another one each time")


def pytest_configure(config: pytest.Config) -> None:
    """Have what is started from now on load the library: the processes of pytest-xdist, too."""
    if hasattr(config, "workerinput"):
        sys.setswitchinterval(SWITCH_S)
        return
    if not config.getoption("numprocesses", None):
        raise pytest.UsageError(
            "tests.support.jitter needs processes of pytest-xdist: -n 1, or more"
        )
    directory = tempfile.TemporaryDirectory(prefix="relay-jitter-")
    config.add_cleanup(directory.cleanup)
    Path(directory.name).chmod(0o755)  # relays run as other users, too
    library = Path(directory.name, "jitter.so")
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    seed = config.getoption("jitter_seed") or secrets.randbelow(2**31) + 1
    os.environ |= {"LD_PRELOAD": str(library), SEED: str(seed)}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how to repeat this run."""
    terminalreporter.write_line(f"repeat these schedules by --jitter-seed {os.environ[SEED]}")
