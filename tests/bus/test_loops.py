"""The event loop of these tests."""

from __future__ import annotations

import subprocess
import sys

from tests.support.cluster import COMMAND_S, ROOT

PROGRAM = """
import asyncio
from tests.support.loops import ClosingLoop
loop = ClosingLoop()
server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
loop.close()
"""


def test_what_a_failed_test_leaves_open_is_reported_and_ends_no_run() -> None:
    """A loop that has an open server is closed, with an error where warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    assert done.returncode == 1
    assert "ResourceWarning: unclosed resource <TCPServer" in done.stderr
