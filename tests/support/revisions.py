"""Earlier versions of the program from this repository, beside the present one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cluster import COMMAND_S, ROOT


class Revision:
    """One version's package ``relay``, in a directory."""

    def __init__(self, commit: str, directory: Path) -> None:
        """Unpack it; skip the test where this is no clone with the whole history."""
        self.source = directory / commit
        archive = directory / f"{commit}.tar"
        command = ["git", "archive", "--output", str(archive), commit, "relay"]
        if (
            shutil.which("git") is None
            or subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode
        ):
            pytest.skip(f"there is no commit {commit} here: it needs a clone with all history")
        shutil.unpack_archive(archive, self.source)

    @contextmanager
    def serving(self, data: Path) -> Iterator[str]:
        """Run its server; the address."""
        flags = ("--data", data, "--bind", "127.0.0.1:0", "--workers", "2")
        with self.start("serve", *flags) as server:
            assert server.stdout is not None
            assert server.stderr is not None
            with ThreadPoolExecutor(1) as reading:
                log = reading.submit(server.stderr.read)
                try:
                    words = (word for line in server.stdout for word in line.split())
                    address = next((word for word in words if word.startswith("relay://")), "")
                    assert address, log.result(COMMAND_S)
                    yield address
                finally:
                    server.terminate()
                    assert server.wait(COMMAND_S) == 0, log.result(COMMAND_S)

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        """Start one of its commands, with pipes for its output."""
        return subprocess.Popen(
            [sys.executable, "-m", "relay.cli", *map(str, args)],
            cwd=self.source,
            env={**os.environ, "PYTHONPATH": str(self.source)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of its commands to its end."""
        with self.start(*args) as started:
            output, errors = started.communicate(timeout=COMMAND_S)
        return subprocess.CompletedProcess(args, started.returncode, output, errors)
