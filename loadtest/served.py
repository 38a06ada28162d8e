"""A relay of one's own for a load test: started, hurt if asked, and stopped with the test."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

import psutil

ROOT: Final = Path(__file__).parent.parent
STOP_S: Final = 40.0
"""Beyond the server's own graceful timeout."""
_ADDRESS: Final = re.compile(r"relay://[a-z2-7]{52}@\S+:(\d+)")


class NotServed(Exception):
    """The relay did not start; the text has what it said."""


class Served:
    """``relay serve`` on a free port of this machine, with a data directory of its own."""

    def __init__(self, workers: int, *flags: str) -> None:
        """``with`` starts it. Workers 0: one per core."""
        self._scratch = tempfile.TemporaryDirectory(prefix="relay-loadtest-")
        self._flags = ["--workers", str(workers), *flags]
        self._log = Path(self._scratch.name) / "serve.log"
        self._process: subprocess.Popen[str] | None = None
        """None while it is stopped."""
        self.port = 0
        self.address = ""
        """With the fingerprint; empty before the first start."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._scratch.cleanup()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._scratch.cleanup()

    def start(self) -> None:
        """Start it: on the port and with the data of before, if there were any.

        Raises:
            NotServed: it ended instead.
        """
        data = Path(self._scratch.name) / "data"
        command = [sys.executable, "-m", "relay.cli", "serve", "--data", str(data), *self._flags]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--bind", f"127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                start_new_session=True,  # an interrupt is for Locust first
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = _ADDRESS.search(line)
            if found:
                self.address, self.port = found.group(), int(found.group(1))
                return
        raise NotServed("relay serve ended: " + self._log.read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        """End it by TERM, as an operator does; kill it if it does not go."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Return its processes whose title has this word; all of them if none is given."""
        if self._process is None:
            return []
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self._process.pid)
            for process in (supervisor, *supervisor.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if title in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def kill_worker(self, index: int) -> int:
        """``kill -9`` of a worker; return its process id, 0 when there is none."""
        workers = self.processes("relay: worker")
        if not workers:
            return 0
        victim = workers[index % len(workers)]
        victim.kill()
        return victim.pid
