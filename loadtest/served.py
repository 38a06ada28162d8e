"""A relay of one's own for a load test: started, found, and stopped with the test."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
STOP_S: Final = 40.0
"""Beyond the server's own graceful timeout."""
_ADDRESS: Final = re.compile(r"relay://[a-z2-7]{52}@\S+")


class NotServed(Exception):
    """The relay did not start; the text has what it said."""


@contextmanager
def served(workers: int, *flags: str, data: Path | None = None) -> Iterator[str]:
    """Run ``relay serve`` on a free port; yield its address with its fingerprint.

    Raises:
        NotServed: it ended instead.
    """
    with tempfile.TemporaryDirectory(prefix="relay-loadtest-") as scratch:
        log_path = Path(scratch) / "serve.log"
        command = [sys.executable, "-m", "relay.cli", "serve", "--workers", str(workers)]
        command += ["--bind", "127.0.0.1:0", "--data", str(data or Path(scratch) / "data"), *flags]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                start_new_session=True,  # an interrupt is for Locust first
            )
        try:
            yield _address(process, log_path)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[str], log_path: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = _ADDRESS.search(line)
        if found:
            return found.group()
    raise NotServed("relay serve ended: " + log_path.read_text(errors="replace")[-2000:])
