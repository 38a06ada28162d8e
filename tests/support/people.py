"""A user of ``relay chat``, in its own process, line by line."""

from __future__ import annotations

import array
import fcntl
import termios
from pathlib import Path
from typing import Self

from tests.support.cluster import DEADLINE_S, collect, start_client, wait_until


class Person:
    """``relay chat`` on pipes: type lines, look at what is shown."""

    def __init__(self, address: str, name: str, room: str, home: Path, *args: str) -> None:
        self.shown: list[str] = []
        self.notices: list[str] = []
        known = {"RELAY_KNOWN_SERVERS": str(home / "known_servers")}
        self.process = start_client(
            "chat", address, room, "--name", name, *args, typed=True, env=known
        )
        self._threads = [
            collect(self.process.stdout, self.shown),
            collect(self.process.stderr, self.notices),
        ]

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *exc: object) -> None:
        """End the input, which ends the chat."""
        self.leave()

    def types(self, *lines: str) -> None:
        """Type lines."""
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def has_read_all(self) -> None:
        """Wait until the process has read what was typed."""
        stdin = self.process.stdin
        assert stdin is not None
        unread = array.array("i", [0])

        def none() -> bool:
            fcntl.ioctl(stdin, termios.FIONREAD, unread)
            return unread[0] == 0

        wait_until(none, "all that was typed read")

    def sees(self, *texts: str) -> None:
        """Wait until each text is in a line that is shown."""
        for text in texts:
            wait_until(lambda t=text: any(t in line for line in self.shown), f"{text!r} shown")  # type: ignore[misc]

    def is_told(self, text: str) -> None:
        """Wait for a notice."""
        wait_until(lambda: any(text in line for line in self.notices), f"notice {text!r}")

    def leave(self) -> int:
        """Close the input; return the exit code."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            code = self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
            for thread in self._threads:
                thread.join(DEADLINE_S)
        unforeseen = [line for line in self.notices if "internal error" in line]
        assert not unforeseen, unforeseen
        return code
