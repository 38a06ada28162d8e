"""``relay tail --json`` in its own process, collected."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any, Self

from tests.support.cluster import DEADLINE_S, start_client, wait_until


class Tail:
    """Follows a room and keeps every JSON object that is printed."""

    def __init__(self, address: str, room: str, *args: str) -> None:
        self.entries: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.process = start_client("tail", address, room, "--json", *args)
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._read, self._err)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.entries.append(json.loads(line))

    def _err(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.errors.append(line.rstrip("\n"))

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop it as a person would."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
            for thread in self._threads:
                thread.join(DEADLINE_S)

    @property
    def bodies(self) -> list[str]:
        """The texts so far."""
        return [entry["body"] for entry in self.entries if "body" in entry]

    def has(self, count: int) -> list[str]:
        """Wait for so many entries and return their texts."""
        wait_until(lambda: len(self.bodies) >= count, f"{count} entries in tail", 60)
        return self.bodies
