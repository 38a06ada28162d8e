"""Runs the program of small_server.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from tests.support.cluster import DEADLINE_S, ROOT, wait_until


class Running:
    """A supervisor with minimal children, in a process group of its own."""

    def __init__(self, directory: Path, workers: int, **server: float) -> None:
        self.directory = directory
        self.printed: list[str] = []
        self.messages: list[str] = []
        """Lines on stderr that are not log lines."""
        self.log: list[dict[str, Any]] = []
        command = [sys.executable, "-m", "tests.server.supervisor.small_server", str(directory)]
        self.process = subprocess.Popen(
            [*command, str(workers), json.dumps(server)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._threads = [
            self._collect(self.process.stdout, self.printed.append),
            self._collect(self.process.stderr, self._take_line),
        ]

    @staticmethod
    def _collect(stream: IO[str] | None, take: Callable[[str], None]) -> threading.Thread:
        assert stream is not None

        def run() -> None:
            with stream:
                for line in stream:
                    take(line.rstrip("\n"))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _take_line(self, line: str) -> None:
        if line.startswith("{"):
            self.log.append(json.loads(line))
        else:
            self.messages.append(line)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in list(self.log) if line["event"] == name]

    def wait_ready(self) -> None:
        wait_until(lambda: self.printed or self.process.poll() is not None, "the start")
        assert self.printed == ["fingerprint"], self.messages

    def wait_events(self, name: str, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.events(name)) >= count, f"{count} times {name}")
        return self.events(name)

    def table(self) -> list[dict[str, Any]]:
        """Return the workers by the newest log line about them."""
        workers: list[dict[str, Any]] = self.wait_events("workers", 1)[-1]["workers"]
        return workers

    def pid(self, index: int) -> int:
        return int(self.table()[index]["pid"])

    def agent_pid(self) -> int:
        return int(self.events("agent_ready")[-1]["pid"])

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def wait_end(self) -> int:
        code = self.process.wait(DEADLINE_S)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        return code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait_end()


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a function that starts a supervisor with the given settings."""
    running: list[Running] = []

    def start(workers: int = 2, **server: float) -> Running:
        running.append(Running(tmp_path, workers, **server))
        return running[-1]

    yield start
    for each in running:
        each.kill()
